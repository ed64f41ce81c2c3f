// Vectors of 16 lanes built from two halves, so that one kernel body serves registers of 128, 256 and 512 bits.
//
// Every name of kernels/*.inl.hpp lives in an anonymous namespace: each ISA translation unit has its own copy, and none
// can be merged with another's by the linker. No std container or inline std function may be called from here.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "simd/kernels.hpp"

#define FASTKV_INLINE [[gnu::always_inline]] inline

namespace fastkv::simd {
namespace {

/// A compile-time index, and fn(Index<0>) … fn(Index<N-1>): unrolled by the front end, so that arrays of vectors
/// indexed by it stay in registers (the compiler's own unrolling leaves them in memory).
template <int I>
struct Index {
  static constexpr int value = I;
  FASTKV_INLINE constexpr operator int() const { return I; }
};
template <int... I>
struct Indices {};
template <class A, class B>
struct Join;
template <int... A, int... B>
struct Join<Indices<A...>, Indices<B...>> {
  using type = Indices<A..., (int(sizeof...(A)) + B)...>;
};
template <int N>
struct MakeIndices {
  using type = typename Join<typename MakeIndices<N / 2>::type, typename MakeIndices<N - N / 2>::type>::type;
};
template <>
struct MakeIndices<0> {
  using type = Indices<>;
};
template <>
struct MakeIndices<1> {
  using type = Indices<0>;
};
template <class Fn, int... I>
FASTKV_INLINE void unroll(Indices<I...>, Fn&& fn) {
  (fn(Index<I>{}), ...);
}
template <int N, class Fn>
FASTKV_INLINE void unroll(Fn&& fn) {
  unroll(typename MakeIndices<N>::type{}, fn);
}

/// A scalar read from any address.
template <class T>
FASTKV_INLINE T read(const void* p) {
  T value;
  std::memcpy(&value, p, sizeof value);
  return value;
}

/// Asks for Bytes from there on, where that pays; any address.
template <int Bytes>
FASTKV_INLINE void fetch(const std::uint8_t* from) {
  if (!fetches_ahead) return;
  unroll<(Bytes + 63) / 64>([&](auto line) __attribute__((always_inline)) {
    _mm_prefetch(reinterpret_cast<const char*>(from + line * 64), _MM_HINT_T0);
  });
}

/// Two halves that act as one vector; T is a register of kernels/lanes_*.inl.hpp or another Pair.
template <class T>
struct Pair {
  static constexpr int lanes = 2 * T::lanes;
  static constexpr int bytes = 4 * lanes;
  T lo, hi;

  // Float and integer vectors.
  template <class P>
  FASTKV_INLINE static Pair load(const P* p) {
    return {T::load(p), T::load(p + lanes / 2 * 4 / sizeof(P))};
  }
  template <class X>
  FASTKV_INLINE static Pair set(X x) {
    return {T::set(x), T::set(x)};
  }
  template <class P>
  FASTKV_INLINE void store(P* p) const {
    lo.store(p), hi.store(p + lanes / 2 * 4 / sizeof(P));
  }
  // Float (from_i8: integer too) vectors from narrow elements, and back.
  FASTKV_INLINE static Pair from_f16(const std::uint16_t* p) { return {T::from_f16(p), T::from_f16(p + lanes / 2)}; }
  FASTKV_INLINE static Pair set_f16(std::uint16_t x) { return {T::set_f16(x), T::set_f16(x)}; }
  FASTKV_INLINE static Pair from_bf16(const std::uint16_t* p) { return {T::from_bf16(p), T::from_bf16(p + lanes / 2)}; }
  FASTKV_INLINE static Pair from_i8(const std::int8_t* p) { return {T::from_i8(p), T::from_i8(p + lanes / 2)}; }
  FASTKV_INLINE static Pair from_u8(const std::uint8_t* p) { return {T::from_u8(p), T::from_u8(p + lanes / 2)}; }
  FASTKV_INLINE void to_f16(std::uint16_t* p) const { lo.to_f16(p), hi.to_f16(p + lanes / 2); }
  // Integer vectors to narrow elements (values in range).
  FASTKV_INLINE void to_i8(std::int8_t* p) const { lo.to_i8(p), hi.to_i8(p + lanes / 2); }
  FASTKV_INLINE void to_u16(std::uint16_t* p) const { lo.to_u16(p), hi.to_u16(p + lanes / 2); }
};

// Arithmetic on both halves.
template <class T>
FASTKV_INLINE Pair<T> operator+(Pair<T> a, Pair<T> b) {
  return {a.lo + b.lo, a.hi + b.hi};
}
template <class T>
FASTKV_INLINE Pair<T> operator-(Pair<T> a, Pair<T> b) {
  return {a.lo - b.lo, a.hi - b.hi};
}
template <class T>
FASTKV_INLINE Pair<T> operator*(Pair<T> a, Pair<T> b) {
  return {a.lo * b.lo, a.hi * b.hi};
}
template <class T>
FASTKV_INLINE Pair<T> operator/(Pair<T> a, Pair<T> b) {
  return {a.lo / b.lo, a.hi / b.hi};
}
template <class T>
FASTKV_INLINE Pair<T> operator&(Pair<T> a, Pair<T> b) {
  return {a.lo & b.lo, a.hi & b.hi};
}
template <class T>
FASTKV_INLINE Pair<T> operator|(Pair<T> a, Pair<T> b) {
  return {a.lo | b.lo, a.hi | b.hi};
}
template <class T>
FASTKV_INLINE Pair<T> operator^(Pair<T> a, Pair<T> b) {
  return {a.lo ^ b.lo, a.hi ^ b.hi};
}
template <class T>
FASTKV_INLINE Pair<T> fma(Pair<T> a, Pair<T> b, Pair<T> c) {
  return {fma(a.lo, b.lo, c.lo), fma(a.hi, b.hi, c.hi)};
}
template <class T>
FASTKV_INLINE Pair<T> max(Pair<T> a, Pair<T> b) {
  return {max(a.lo, b.lo), max(a.hi, b.hi)};
}
template <class T>
FASTKV_INLINE Pair<T> min(Pair<T> a, Pair<T> b) {
  return {min(a.lo, b.lo), min(a.hi, b.hi)};
}
/// a where x ≥ y, else zero.
template <class T>
FASTKV_INLINE Pair<T> keep_if_ge(Pair<T> a, Pair<T> x, Pair<T> y) {
  return {keep_if_ge(a.lo, x.lo, y.lo), keep_if_ge(a.hi, x.hi, y.hi)};
}
/// All bits of a lane where x is NaN.
template <class T>
FASTKV_INLINE auto nan_mask(Pair<T> x) {
  return pair(nan_mask(x.lo), nan_mask(x.hi));
}

template <class T>
FASTKV_INLINE Pair<T> pair(T lo, T hi) {
  return {lo, hi};
}
template <class T>
FASTKV_INLINE auto as_int(Pair<T> x) {
  return pair(as_int(x.lo), as_int(x.hi));
}
template <class T>
FASTKV_INLINE auto as_float(Pair<T> x) {
  return pair(as_float(x.lo), as_float(x.hi));
}
template <class T>
FASTKV_INLINE auto to_float(Pair<T> x) {
  return pair(to_float(x.lo), to_float(x.hi));
}
/// Nearest integer, ties to even.
template <class T>
FASTKV_INLINE auto to_int(Pair<T> x) {
  return pair(to_int(x.lo), to_int(x.hi));
}
template <int N, class T>
FASTKV_INLINE Pair<T> shift_left(Pair<T> x) {
  return {shift_left<N>(x.lo), shift_left<N>(x.hi)};
}
template <int N, class T>
FASTKV_INLINE Pair<T> shift_right(Pair<T> x) {
  return {shift_right<N>(x.lo), shift_right<N>(x.hi)};
}
template <int N, class T>
FASTKV_INLINE Pair<T> shift_right_signed(Pair<T> x) {
  return {shift_right_signed<N>(x.lo), shift_right_signed<N>(x.hi)};
}
/// a where a bit of m is set, b elsewhere.
template <class T>
FASTKV_INLINE Pair<T> select(Pair<T> m, Pair<T> a, Pair<T> b) {
  return {select(m.lo, a.lo, b.lo), select(m.hi, a.hi, b.hi)};
}
/// 1/x within 2^-13.
template <class T>
FASTKV_INLINE Pair<T> reciprocal(Pair<T> x) {
  return {reciprocal(x.lo), reciprocal(x.hi)};
}
/// x − floor(x), and p · 2^floor(x), which is 0 for x < −126 (no slow subnormals); NaN stays NaN.
template <class T>
FASTKV_INLINE Pair<T> fraction(Pair<T> x) {
  return {fraction(x.lo), fraction(x.hi)};
}
template <class T>
FASTKV_INLINE Pair<T> times_power(Pair<T> p, Pair<T> x) {
  return {times_power(p.lo, x.lo), times_power(p.hi, x.hi)};
}
/// Bytes looked up in a table of 16, indexed by the low four bits.
template <class T>
FASTKV_INLINE Pair<T> lookup16(const std::uint8_t* table, Pair<T> x) {
  return {lookup16(table, x.lo), lookup16(table, x.hi)};
}
/// acc + Σ over the four bytes of a lane of unsigned w times signed a, exact; wide: w above 128 may occur, with any a.
template <bool wide, class T>
FASTKV_INLINE Pair<T> dot_i8(Pair<T> acc, Pair<T> w, Pair<T> a) {
  return {dot_i8<wide>(acc.lo, w.lo, a.lo), dot_i8<wide>(acc.hi, w.hi, a.hi)};
}
/// The same with a = four bytes from memory in every lane.
template <bool wide, class T>
FASTKV_INLINE Pair<T> dot_i8(Pair<T> acc, Pair<T> w, const std::int8_t* a) {
  return dot_i8<wide>(acc, w, Pair<T>::set(read<std::int32_t>(a)));
}
/// x, loaded now and once where registers abound.
template <class T>
FASTKV_INLINE Pair<T> in_register(Pair<T> x) {
  return x;
}
/// acc + w[2r]·a[2r] + w[2r+1]·a[2r+1] of bfloat16 pairs.
template <class F, class T>
FASTKV_INLINE Pair<F> dot_bf16(Pair<F> acc, Pair<T> w, Pair<T> a) {
  return {dot_bf16(acc.lo, w.lo, a.lo), dot_bf16(acc.hi, w.hi, a.hi)};
}
/// Lanes (within ±127) of a, b, c and d as bytes, side by side.
template <class T>
FASTKV_INLINE Pair<T> narrow(Pair<T> a, Pair<T> b, Pair<T> c, Pair<T> d) {
  alignas(64) std::int8_t bytes[4 * Pair<T>::lanes];
  a.to_i8(bytes), b.to_i8(bytes + Pair<T>::lanes);
  c.to_i8(bytes + 2 * Pair<T>::lanes), d.to_i8(bytes + 3 * Pair<T>::lanes);
  return Pair<T>::load(bytes);
}
/// Adjacent pairs: (x0,x0,x2,x2,…), (x1,x1,x3,x3,…), (x1,x0,x3,x2,…).
template <class T>
FASTKV_INLINE Pair<T> even_twice(Pair<T> x) {
  return {even_twice(x.lo), even_twice(x.hi)};
}
template <class T>
FASTKV_INLINE Pair<T> odd_twice(Pair<T> x) {
  return {odd_twice(x.lo), odd_twice(x.hi)};
}
template <class T>
FASTKV_INLINE Pair<T> swap_pairs(Pair<T> x) {
  return {swap_pairs(x.lo), swap_pairs(x.hi)};
}
/// Lane i <- lane i ^ Bit, Bit a power of two below the number of lanes.
template <int Bit, class T>
FASTKV_INLINE Pair<T> swap_lanes(Pair<T> x) {
  if constexpr (Bit == T::lanes) {
    return {x.hi, x.lo};
  } else {
    return {swap_lanes<Bit>(x.lo), swap_lanes<Bit>(x.hi)};
  }
}

// Folding 16 lanes to four, the first step of every horizontal sum: lanes i, i+8 are added first, then i, i+4.
template <class T>
FASTKV_INLINE __m128 fold4(Pair<T> x) {
  return fold4(x.lo + x.hi);
}
template <class T>
FASTKV_INLINE __m128 fold4_max(Pair<T> x) {
  return fold4_max(max(x.lo, x.hi));
}
template <class T>
FASTKV_INLINE __m128i fold4_int(Pair<T> x) {
  return fold4_int(x.lo + x.hi);
}

}  // namespace
}  // namespace fastkv::simd
