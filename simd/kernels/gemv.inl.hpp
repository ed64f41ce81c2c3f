// One activation row times packed panels at the memory's speed: weights are unpacked in registers, 16 outputs in 16
// lanes, read once; two panels advance together.
#pragma once

#include "simd/kernels/unpack.inl.hpp"

namespace fastkv::simd {
namespace {

/// acc += a.scale · (b.scale · dot − b.min · Σq); `minus_sum` = −Σq of the group as a float.
FASTKV_INLINE F32 add_group(F32 acc, I32 dot, F32 a_scale, F32 b_scale) {
  return fma(to_float(dot) * b_scale, a_scale, acc);
}
FASTKV_INLINE F32 add_group(F32 acc, I32 dot, F32 a_scale, F32 b_scale, F32 b_min, F32 minus_sum) {
  return fma(fma(b_min, minus_sum, to_float(dot) * b_scale), a_scale, acc);
}

/// How far ahead of its use a panel's byte is fetched. Blocks of 256 inputs have their factors in front of all their
/// planes; q4_k came at 30.9 GB/s with 2048 and 26.1 with 1024, formats of 32 inputs are as fast with 512 to 1024.
/// q6_k, whose turns are the longest, comes at 93 % of what a plain read reaches with 768 and 89 % with 2048.
template <Packing P>
inline constexpr std::int64_t kAhead = kFormat<P>.block == 256 && P != Packing::q6_k ? 2048 : 768;
/// The same where two panels lie about half a page apart in their pages, so that one's prefetchers start anew at the
/// begin of a page while the other's run: q4_0 comes 2 to 3 % faster than with 768 or in step.
template <Packing P>
inline constexpr std::int64_t kAheadApart = kFormat<P>.block == 32 && !kFormat<P>.is_float() ? 2048 : kAhead<P>;

/// Bytes of a turn: what is read of one panel before the other one's turn.
template <Packing P>
inline constexpr std::int64_t kTurn = kFormat<P>.is_float() ? 256
                                                            : kFormat<P>.block_bytes() / (kFormat<P>.block / kGroup);

/// N panels that advance together, and where they fetch ahead. Each panel's turn starts with fetch() and reads as much,
/// so that a core asks memory for whole runs of lines of one stream: bfloat16 weights come 10 % faster to two Granite
/// Rapids cores than in alternating lines of four neighbouring panels, q4_0 1 to 2 %.
template <Packing P, int N>
struct Panels {
  const std::uint8_t* at[N];
  const std::uint8_t* next[N];  ///< what is read after this panel, null: the one behind it
  std::int64_t bytes;
  std::int64_t distance;  ///< that fetches run ahead
  std::int64_t tail;      ///< of these last bytes, the turns fetch from beyond the end
  std::int64_t ahead[N];

  /// For panels that lie in their pages as `from` do.
  FASTKV_INLINE void set_distance(const void* const* from) {
    const auto page_offset = [](const void* p) { return reinterpret_cast<std::uintptr_t>(p) % 4096; };
    const std::uintptr_t apart = N == 1 ? 0 : (page_offset(from[0]) - page_offset(from[N - 1])) % 4096;
    distance = apart >= 1024 && apart <= 3072 ? kAheadApart<P> : kAhead<P>;
    tail = (distance + kTurn<P> - 1) / kTurn<P> * kTurn<P>;
  }
  FASTKV_INLINE void begin() {
    unroll<N>([&](auto n) __attribute__((always_inline)) { ahead[n] = distance; });
  }
  /// Before the turn whose bytes begin `done` bytes behind the panel's first.
  FASTKV_INLINE void turn(std::int64_t done) {
    if (bytes - done != tail) return;
    unroll<N>([&](auto n) __attribute__((always_inline)) {
      if (next[n]) ahead[n] = next[n] - (at[n] + done);
    });
  }
  template <int I>
  FASTKV_INLINE void fetch(std::int64_t done) const {
    unroll<int((kTurn<P> + 63) / 64)>([&](auto line) __attribute__((always_inline)) {
      _mm_prefetch(reinterpret_cast<const char*>(at[I] + done + ahead[I] + line * 64), _MM_HINT_T0);
    });
  }
};

/// The output of panel n goes to out + n·ldo.
template <Packing P, int N>
FASTKV_INLINE void gemv_i8_panels(Panels<P, N>& panels, std::int64_t k32, const I8Rows& a, float* out,
                                  std::int64_t ldo) {
  constexpr int kParts = Block<P>::parts;
  const std::int8_t* q = a.q;
  const float* scale = a.scale;
  const std::int32_t* sums = a.sum;
  F32 acc[N];
  unroll<N>([&](auto n) __attribute__((always_inline)) { acc[n] = F32::set(0.f); });
  panels.begin();
  for (std::int64_t k = 0, done = 0; k < k32; k += kFormat<P>.block, done += kFormat<P>.block_bytes()) {
    for (int g = 0; g < Block<P>::groups; ++g, q += kGroup, ++scale, sums += 2) {
      const F32 a_scale = F32::set(*scale);
      panels.turn(done + g * kTurn<P>);
      unroll<N>([&](auto n) __attribute__((always_inline)) {
        panels.template fetch<decltype(n)::value>(done + g * kTurn<P>);
        const Block<P> block(panels.at[n] + done);
        unroll<kParts>([&](auto part) __attribute__((always_inline)) {
          const std::int32_t sum = kParts == 1 ? sums[0] + sums[1] : sums[part];
          I32 dot = I32::set(-kFormat<P>.zero * sum);
          unroll<8 / kParts>([&](auto step) __attribute__((always_inline)) {
            constexpr int j = decltype(part)::value * 4 + decltype(step)::value;
            dot = dot_i8<kFormat<P>.wide()>(dot, codes<P, j>(block.planes(g)), I32::set(read<std::int32_t>(q + 4 * j)));
          });
          if constexpr (kFormat<P>.affine) {
            acc[n] = add_group(acc[n], dot, a_scale, block.scale(g, part), block.min(g), F32::set(-float(sum)));
          } else {
            acc[n] = add_group(acc[n], dot, a_scale, block.scale(g, part));
          }
        });
      });
    }
  }
  unroll<N>([&](auto n) __attribute__((always_inline)) { acc[n].store(out + n * ldo); });
}

template <Packing P, int N>
FASTKV_INLINE void gemv_f32_panels(Panels<P, N>& panels, std::int64_t k32, const float* x, float* out,
                                   std::int64_t ldo) {
  F32 acc[N];
  unroll<N>([&](auto n) __attribute__((always_inline)) { acc[n] = F32::set(0.f); });
  if constexpr (kFormat<P>.is_float()) {
    constexpr int kInput = kLanes * kFormat<P>.element_bytes, kInputs = 256 / kInput;  // of a turn
    panels.begin();
    for (std::int64_t k = 0, done = 0; k < k32; k += kInputs, done += kTurn<P>) {
      panels.turn(done);
      unroll<N>([&](auto n) __attribute__((always_inline)) {
        const std::uint8_t* at = panels.at[n] + done;
        panels.template fetch<decltype(n)::value>(done);
        unroll<kInputs>([&](auto i) __attribute__((always_inline)) {
          acc[n] = fma(F32::set(x[k + i]), load_weights<P>(at + i * kInput), acc[n]);
        });
      });
    }
  } else {
    alignas(64) float weights[32 * kLanes];
    panels.begin();
    for (std::int64_t k = 0, done = 0; k < k32; k += kFormat<P>.block, done += kFormat<P>.block_bytes()) {
      for (int g = 0; g < Block<P>::groups; ++g) {
        panels.turn(done + g * kTurn<P>);
        unroll<N>([&](auto n) __attribute__((always_inline)) {
          panels.template fetch<decltype(n)::value>(done + g * kTurn<P>);
          decode_group<P>(Block<P>(panels.at[n] + done), g, weights);
          for (int i = 0; i < 32; ++i)
            acc[n] = fma(F32::set(x[k + 32 * g + i]), F32::load(weights + i * kLanes), acc[n]);
        });
      }
    }
  }
  unroll<N>([&](auto n) __attribute__((always_inline)) { acc[n].store(out + n * ldo); });
}

/// fn(panels, their output, distance of the outputs) for one panel of each run after another.
template <Packing P, int N, class Fn>
FASTKV_INLINE void for_panels(const PanelRuns& runs, std::int64_t k32, float* out, Fn&& fn) {
  Panels<P, N> panels;
  panels.bytes = k32 / kFormat<P>.block * kFormat<P>.block_bytes();
  panels.set_distance(runs.panels);
  for (std::int64_t i = 0; i < runs.count; ++i, out += kLanes) {
    unroll<N>([&](auto n) __attribute__((always_inline)) {
      panels.at[n] = static_cast<const std::uint8_t*>(runs.panels[n]) + i * panels.bytes;
      panels.next[n] = i + 1 < runs.count ? nullptr : static_cast<const std::uint8_t*>(runs.next[n]);
    });
    fn(panels, out, runs.count * kLanes);
  }
}

template <Packing P>
void gemv_i8_as(const PanelRuns& runs, std::int64_t k32, const I8Rows& a, float* out) {
  if constexpr (!kFormat<P>.is_float()) {
    const auto multiply = [&](auto& panels, float* to, std::int64_t ldo) __attribute__((always_inline)) {
      gemv_i8_panels(panels, k32, a, to, ldo);
    };
    runs.panels[1] ? for_panels<P, 2>(runs, k32, out, multiply) : for_panels<P, 1>(runs, k32, out, multiply);
  }
}

template <Packing P>
void gemv_f32_as(const PanelRuns& runs, std::int64_t k32, const float* x, float* out) {
  const auto multiply = [&](auto& panels, float* to, std::int64_t ldo) __attribute__((always_inline)) {
    gemv_f32_panels(panels, k32, x, to, ldo);
  };
  runs.panels[1] ? for_panels<P, 2>(runs, k32, out, multiply) : for_panels<P, 1>(runs, k32, out, multiply);
}

template <Packing P>
struct GemvI8 {
  static constexpr auto* call = &gemv_i8_as<P>;
};
template <Packing P>
struct GemvF32 {
  static constexpr auto* call = &gemv_f32_as<P>;
};

void gemv_i8(Packing packing, const PanelRuns& runs, std::int64_t k32, const I8Rows& a, float* out) {
  entry_of<GemvI8, void(const PanelRuns&, std::int64_t, const I8Rows&, float*)>(packing)(runs, k32, a, out);
}
void gemv_f32(Packing packing, const PanelRuns& runs, std::int64_t k32, const float* x, float* out) {
  entry_of<GemvF32, void(const PanelRuns&, std::int64_t, const float*, float*)>(packing)(runs, k32, x, out);
}

}  // namespace
}  // namespace fastkv::simd
