// Emulation of CUB's block-wide and warp-wide primitives: plain loops with CUB's barriers and its rule that a barrier
// must part two uses of the same storage.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <array>
#include <numeric>
#include <type_traits>

namespace emulation {

inline int block_thread() { return current->number; }

struct Sum {
  template <class T>
  T operator()(T a, T b) const {
    return a + b;
  }
};

template <class T, int Threads>
struct Slots {
  T values[std::size_t(Threads)];
};

}  // namespace emulation

namespace cub {

enum BlockScanAlgorithm { BLOCK_SCAN_RAKING, BLOCK_SCAN_RAKING_MEMOIZE, BLOCK_SCAN_WARP_SCANS };
enum BlockReduceAlgorithm { BLOCK_REDUCE_RAKING_COMMUTATIVE_ONLY, BLOCK_REDUCE_RAKING, BLOCK_REDUCE_WARP_REDUCTIONS };

/// Results are valid in thread 0 alone; elsewhere CUB leaves them undefined, here value-initialised.
template <class T, int Threads, BlockReduceAlgorithm = BLOCK_REDUCE_WARP_REDUCTIONS>
class BlockReduce {
 public:
  using TempStorage = emulation::Slots<T, Threads>;
  explicit BlockReduce(TempStorage& storage) : storage_(storage) {}
  template <class Op>
  T Reduce(T value, Op op, int valid = Threads) {
    const int me = emulation::block_thread();
    storage_.values[me] = value;
    __syncthreads();
    if (me != 0) return T{};
    T out = storage_.values[0];
    for (int t = 1; t < valid; ++t) out = op(out, storage_.values[t]);
    return out;
  }
  T Sum(T value, int valid = Threads) { return Reduce(value, emulation::Sum{}, valid); }

 private:
  TempStorage& storage_;
};

template <class T, int Threads, BlockScanAlgorithm = BLOCK_SCAN_RAKING>
class BlockScan {
 public:
  using TempStorage = emulation::Slots<T, Threads>;
  explicit BlockScan(TempStorage& storage) : storage_(storage) {}
  template <class Op>
  void ExclusiveScan(T value, T& out, T initial, Op op, T& total) {
    const int me = emulation::block_thread();
    storage_.values[me] = value;
    __syncthreads();
    T before = initial;
    total = storage_.values[0];
    for (int t = 0; t < me; ++t) before = op(before, storage_.values[t]);
    for (int t = 1; t < Threads; ++t) total = op(total, storage_.values[t]);
    out = before;
  }
  template <class Op>
  void ExclusiveScan(T value, T& out, T initial, Op op) {
    T total;
    ExclusiveScan(value, out, initial, op, total);
  }
  template <class Op>
  void InclusiveScan(T value, T& out, Op op, T& total) {
    const int me = emulation::block_thread();
    storage_.values[me] = value;
    __syncthreads();
    T sum = storage_.values[0];
    for (int t = 1; t <= me; ++t) sum = op(sum, storage_.values[t]);
    total = storage_.values[0];
    for (int t = 1; t < Threads; ++t) total = op(total, storage_.values[t]);
    out = sum;
  }
  template <class Op>
  void InclusiveScan(T value, T& out, Op op) {
    T total;
    InclusiveScan(value, out, op, total);
  }
  void ExclusiveSum(T value, T& out) { ExclusiveScan(value, out, T{}, emulation::Sum{}); }
  void ExclusiveSum(T value, T& out, T& total) { ExclusiveScan(value, out, T{}, emulation::Sum{}, total); }
  void InclusiveSum(T value, T& out) { InclusiveScan(value, out, emulation::Sum{}); }
  void InclusiveSum(T value, T& out, T& total) { InclusiveScan(value, out, emulation::Sum{}, total); }
  /// Items of a thread follow one another: thread 0's, thread 1's, …
  template <int Items>
  void ExclusiveSum(T (&values)[Items], T (&out)[Items], T& total) {
    T mine{};
    for (const T& value : values) mine = mine + value;
    T before;
    ExclusiveSum(mine, before, total);
    for (int i = 0; i < Items; ++i) {
      const T value = values[i];
      out[i] = before;
      before = before + value;
    }
  }
  template <int Items>
  void ExclusiveSum(T (&values)[Items], T (&out)[Items]) {
    T total;
    ExclusiveSum(values, out, total);
  }
  template <int Items>
  void InclusiveSum(T (&values)[Items], T (&out)[Items], T& total) {
    T before[Items];
    ExclusiveSum(values, before, total);
    for (int i = 0; i < Items; ++i) out[i] = before[i] + values[i];
  }
  template <int Items>
  void InclusiveSum(T (&values)[Items], T (&out)[Items]) {
    T total;
    InclusiveSum(values, out, total);
  }

 private:
  TempStorage& storage_;
};

struct NullType {};

/// Stable sorts of Threads · Items keys, blocked over the threads, by the bits [begin, end) of each.
template <class Key, int Threads, int Items, class Value = NullType>
class BlockRadixSort {
  static constexpr int kCount = Threads * Items;

 public:
  struct TempStorage {
    Key keys[std::size_t(kCount)];
    Value values[std::size_t(std::is_same_v<Value, NullType> ? 1 : kCount)];
    int order[std::size_t(kCount)];
  };
  explicit BlockRadixSort(TempStorage& storage) : storage_(storage) {}
  void Sort(Key (&keys)[Items], int begin = 0, int end = int(sizeof(Key)) * 8) {
    run(keys, static_cast<Value*>(nullptr), begin, end, false, false);
  }
  void Sort(Key (&keys)[Items], Value (&values)[Items], int begin = 0, int end = int(sizeof(Key)) * 8) {
    run(keys, values, begin, end, false, false);
  }
  void SortDescending(Key (&keys)[Items], int begin = 0, int end = int(sizeof(Key)) * 8) {
    run(keys, static_cast<Value*>(nullptr), begin, end, true, false);
  }
  void SortDescending(Key (&keys)[Items], Value (&values)[Items], int begin = 0, int end = int(sizeof(Key)) * 8) {
    run(keys, values, begin, end, true, false);
  }
  void SortBlockedToStriped(Key (&keys)[Items], int begin = 0, int end = int(sizeof(Key)) * 8) {
    run(keys, static_cast<Value*>(nullptr), begin, end, false, true);
  }

 private:
  void run(Key (&keys)[Items], Value* values, int begin, int end, bool descending, bool striped) {
    static_assert(std::is_unsigned_v<Key>);
    const int me = emulation::block_thread();
    for (int i = 0; i < Items; ++i) {
      storage_.keys[me * Items + i] = keys[i];
      if (values) storage_.values[me * Items + i] = values[i];
    }
    __syncthreads();
    if (me == 0) {
      const int bits = end - begin;
      auto digits = [&](int at) {
        const Key shifted = Key(storage_.keys[at] >> begin);
        return bits >= int(sizeof(Key)) * 8 ? shifted : Key(shifted & ((Key(1) << bits) - 1));
      };
      std::iota(storage_.order, storage_.order + kCount, 0);
      std::stable_sort(storage_.order, storage_.order + kCount,
                       [&](int a, int b) { return descending ? digits(a) > digits(b) : digits(a) < digits(b); });
    }
    __syncthreads();
    for (int i = 0; i < Items; ++i) {
      const int from = storage_.order[striped ? i * Threads + me : me * Items + i];
      keys[i] = storage_.keys[from];
      if (values) values[i] = storage_.values[from];
    }
  }
  TempStorage& storage_;
};

/// Results are valid in lane 0 of each group of `Lanes`.
template <class T, int Lanes = 32>
class WarpReduce {
 public:
  struct TempStorage {};
  explicit WarpReduce(TempStorage&) {}
  template <class Op>
  T Reduce(T value, Op op) {
    for (int delta = Lanes / 2; delta > 0; delta /= 2)
      value = op(value, __shfl_down_sync(0xffffffffu, value, unsigned(delta), Lanes));
    return value;
  }
  T Sum(T value) { return Reduce(value, emulation::Sum{}); }
};

}  // namespace cub
