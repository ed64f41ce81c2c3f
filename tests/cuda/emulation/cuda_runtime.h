// Emulation of the CUDA device language: where a thread is, barriers, warp collectives, atomics, intrinsics.
#pragma once

#include <atomic>
#include <bit>
#include <cmath>
#include <cstring>
#include <type_traits>

#include "cuda_runtime_api.h"
#include "fibers.hpp"

#define threadIdx (::emulation::current->index)
#define blockIdx (::emulation::current->block->index)
#define blockDim (::emulation::current->block->size)
#define gridDim (::emulation::current->block->grid)
inline constexpr int warpSize = 32;

// ---- barriers and warp collectives ---------------------------------------------------------------------------------

inline void __syncthreads() { emulation::barrier("__syncthreads", false); }
inline int __syncthreads_count(int predicate) {
  return emulation::barrier("__syncthreads_count", predicate != 0).count;
}
inline int __syncthreads_or(int predicate) { return emulation::barrier("__syncthreads_or", predicate != 0).count > 0; }
inline int __syncthreads_and(int predicate) {
  const emulation::Votes votes = emulation::barrier("__syncthreads_and", predicate != 0);
  return votes.count == votes.of;
}
inline void __syncwarp(unsigned mask = 0xffffffffu) {
  emulation::collective("__syncwarp", mask, nullptr, [](void* const*, std::uint32_t) {});
}

namespace emulation {

template <class T>
struct Shuffle {
  T value, result;
  int from;  ///< lane
};

/// Every lane gets the value that lane `from` passed; what an absent lane would have passed is undefined, here all
/// ones.
template <class T>
T shuffle(const char* what, unsigned mask, T value, int from) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= 8);
  Shuffle<T> lane{value, value, from};
  collective(what, mask, &lane, [](void* const* lanes, std::uint32_t present) {
    for (int l = 0; l < 32; ++l) {
      if (!(present >> l & 1)) continue;
      auto* mine = static_cast<Shuffle<T>*>(lanes[l]);
      if (present >> mine->from & 1) {
        mine->result = static_cast<Shuffle<T>*>(lanes[mine->from])->value;
      } else {
        std::memset(static_cast<void*>(&mine->result), 0xff, sizeof(T));
      }
    }
  });
  return lane.result;
}

struct Ballot {
  bool predicate;
  unsigned result, present;
};
inline Ballot ballot(const char* what, unsigned mask, bool predicate) {
  Ballot lane{predicate, 0, 0};
  collective(what, mask, &lane, [](void* const* lanes, std::uint32_t present) {
    unsigned votes = 0;
    for (int l = 0; l < 32; ++l)
      if (present >> l & 1 && static_cast<Ballot*>(lanes[l])->predicate) votes |= 1u << l;
    for (int l = 0; l < 32; ++l) {
      if (!(present >> l & 1)) continue;
      static_cast<Ballot*>(lanes[l])->result = votes;
      static_cast<Ballot*>(lanes[l])->present = present;
    }
  });
  return lane;
}

inline int lane() { return current->lane(); }

}  // namespace emulation

template <class T>
T __shfl_sync(unsigned mask, T value, int lane, int width = 32) {
  const int first = emulation::lane() & ~(width - 1);
  return emulation::shuffle("__shfl_sync", mask, value, first + (lane & (width - 1)));
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32) {
  const int me = emulation::lane(), from = me ^ lanes;
  return emulation::shuffle("__shfl_xor_sync", mask, value, from < (me & ~(width - 1)) + width ? from & 31 : me);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32) {
  const int me = emulation::lane();
  const bool inside = (me & (width - 1)) + int(delta) < width;
  return emulation::shuffle("__shfl_down_sync", mask, value, inside ? me + int(delta) : me);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32) {
  const int me = emulation::lane();
  const bool inside = (me & (width - 1)) >= int(delta);
  return emulation::shuffle("__shfl_up_sync", mask, value, inside ? me - int(delta) : me);
}
inline unsigned __ballot_sync(unsigned mask, int predicate) {
  return emulation::ballot("__ballot_sync", mask, predicate != 0).result;
}
inline int __any_sync(unsigned mask, int predicate) {
  return emulation::ballot("__any_sync", mask, predicate != 0).result != 0;
}
inline int __all_sync(unsigned mask, int predicate) {
  const emulation::Ballot votes = emulation::ballot("__all_sync", mask, predicate != 0);
  return votes.result == votes.present;
}

// ---- memory and atomics (integers only: sums of floats have a fixed order) -----------------------------------------

template <class T>
T __ldg(const T* from) {
  return *from;
}
template <class T>
T __ldcs(const T* from) {
  return *from;
}
template <class T>
T __ldcg(const T* from) {
  return *from;
}
template <class T>
void __stcs(T* to, T value) {
  *to = value;
}
template <class T>
void __stcg(T* to, T value) {
  *to = value;
}
inline void __threadfence() { std::atomic_thread_fence(std::memory_order_seq_cst); }
inline void __threadfence_block() { std::atomic_thread_fence(std::memory_order_seq_cst); }

template <class T, class U>
T atomicAdd(T* at, U value) {
  static_assert(std::is_integral_v<T>);
  return std::atomic_ref<T>(*at).fetch_add(T(value));
}
template <class T, class U>
T atomicOr(T* at, U value) {
  return std::atomic_ref<T>(*at).fetch_or(T(value));
}
template <class T, class U>
T atomicAnd(T* at, U value) {
  return std::atomic_ref<T>(*at).fetch_and(T(value));
}
template <class T, class U>
T atomicExch(T* at, U value) {
  static_assert(std::is_integral_v<T>);
  return std::atomic_ref<T>(*at).exchange(T(value));
}
template <class T, class U, class V>
T atomicCAS(T* at, U expected, V value) {
  T found = T(expected);
  std::atomic_ref<T>(*at).compare_exchange_strong(found, T(value));
  return found;
}
template <class T, class U>
T atomicMax(T* at, U value) {
  static_assert(std::is_integral_v<T>);
  T found = *at;
  while (found < T(value) && !std::atomic_ref<T>(*at).compare_exchange_weak(found, T(value))) {
  }
  return found;
}
template <class T, class U>
T atomicMin(T* at, U value) {
  static_assert(std::is_integral_v<T>);
  T found = *at;
  while (T(value) < found && !std::atomic_ref<T>(*at).compare_exchange_weak(found, T(value))) {
  }
  return found;
}

// ---- arithmetic ----------------------------------------------------------------------------------------------------

template <class A, class B>
requires(std::is_arithmetic_v<A>&& std::is_arithmetic_v<B>) constexpr auto min(A a, B b) {
  if constexpr (std::is_floating_point_v<std::common_type_t<A, B>>) {
    return std::fmin(std::common_type_t<A, B>(a), std::common_type_t<A, B>(b));
  } else {
    return std::common_type_t<A, B>(a) < std::common_type_t<A, B>(b) ? std::common_type_t<A, B>(a)
                                                                     : std::common_type_t<A, B>(b);
  }
}
template <class A, class B>
requires(std::is_arithmetic_v<A>&& std::is_arithmetic_v<B>) constexpr auto max(A a, B b) {
  if constexpr (std::is_floating_point_v<std::common_type_t<A, B>>) {
    return std::fmax(std::common_type_t<A, B>(a), std::common_type_t<A, B>(b));
  } else {
    return std::common_type_t<A, B>(a) < std::common_type_t<A, B>(b) ? std::common_type_t<A, B>(b)
                                                                     : std::common_type_t<A, B>(a);
  }
}

inline float __expf(float x) { return std::exp(x); }
inline float __logf(float x) { return std::log(x); }
inline float __log2f(float x) { return std::log2(x); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __dadd_rn(double a, double b) { return a + b; }
inline float __fsqrt_rn(float x) { return std::sqrt(x); }
inline float __saturatef(float x) { return std::fmin(std::fmax(x, 0.0f), 1.0f); }
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline double rsqrt(double x) { return 1.0 / std::sqrt(x); }
inline int __float2int_rn(float x) { return int(std::nearbyint(x)); }
inline int __float2int_rz(float x) { return int(x); }
inline int __float2int_rd(float x) { return int(std::floor(x)); }
inline float __int2float_rn(int x) { return float(x); }
inline float __uint2float_rn(unsigned x) { return float(x); }

inline unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }
inline int __float_as_int(float x) { return std::bit_cast<int>(x); }
inline float __uint_as_float(unsigned x) { return std::bit_cast<float>(x); }
inline float __int_as_float(int x) { return std::bit_cast<float>(x); }
inline long long __double_as_longlong(double x) { return std::bit_cast<long long>(x); }
inline double __longlong_as_double(long long x) { return std::bit_cast<double>(x); }

inline int __popc(unsigned x) { return std::popcount(x); }
inline int __popcll(unsigned long long x) { return std::popcount(x); }
inline int __clz(int x) { return std::countl_zero(unsigned(x)); }
inline int __clzll(long long x) { return std::countl_zero(static_cast<unsigned long long>(x)); }
inline int __ffs(int x) { return x ? std::countr_zero(unsigned(x)) + 1 : 0; }
inline int __ffsll(long long x) { return x ? std::countr_zero(static_cast<unsigned long long>(x)) + 1 : 0; }
inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned(std::uint64_t(a) * b >> 32); }
/// Byte i of the result is byte (selector >> 4·i & 7) of y:x.
inline unsigned __byte_perm(unsigned x, unsigned y, unsigned selector) {
  const std::uint64_t bytes = std::uint64_t(y) << 32 | x;
  unsigned out = 0;
  for (int i = 0; i < 4; ++i) out |= unsigned(bytes >> (8 * (selector >> (4 * i) & 7)) & 0xff) << (8 * i);
  return out;
}
