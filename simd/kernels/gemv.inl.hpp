// One activation row times packed panels at the memory's speed: weights are unpacked in registers, 16 outputs in 16
// lanes, read once; one panel alone, or two runs of panels together.
#pragma once

#include "simd/kernels/unpack.inl.hpp"

namespace fastkv::simd {
namespace {

/// What is read of one panel before the other one's turn: a core asks memory for whole runs of lines of one stream
/// (bfloat16 weights come 10 % faster to two Granite Rapids cores than in alternating lines of four neighbouring
/// panels, q4_0 1 to 2 %).
template <Packing P>
inline constexpr int kTurnInputs = kFormat<P>.is_float() ? 256 / (kLanes * kFormat<P>.element_bytes) : kGroup;
template <Packing P>
inline constexpr std::int64_t kBlockBytes = kFormat<P>.is_float() ? 256 : kFormat<P>.block_bytes();  ///< whole turns
template <Packing P>
inline constexpr std::int64_t kTurn = kFormat<P>.is_float() ? 256
                                                            : kFormat<P>.block_bytes() / (kFormat<P>.block / kGroup);

/// Turns of a block.
template <Packing P>
inline constexpr std::int64_t kBlockTurns = kFormat<P>.is_float() ? 1 : kFormat<P>.block / kGroup;

/// How far ahead of its use a byte is fetched. On two Granite Rapids cores q4_0 came at 98 % of the read loop with
/// 2048, 101 % with 2304 or 2592, 97 % with 3168; q6_k at 99, 101 and 98 %; bf16 at 90 % with 1536, 97 % with 2304.
/// q8_0, whose turns are 8.5 lines, at 87 % with 2176 and 93 % with 768; f32 at 75 to 93 % and 90 %.
template <Packing P>
inline constexpr std::int64_t kFetchAhead = P == Packing::q8_0 || P == Packing::f32 ? 768 : 2304;

/// By how many turns of a panel's `all`, whole blocks, the first of two runs that lie `apart` bytes apart is ahead of
/// the second: as many as bring it half a page ahead in its page, because the prefetchers of one start anew at the
/// begin of a page while the other's run. In step q4_0 came at 93 % of the read loop instead of 99, q6_k at 94 instead
/// of 101, bf16 at 86 instead of 97.
template <Packing P>
std::int64_t turns_ahead(std::uintptr_t apart, std::int64_t all) {
  constexpr std::int64_t kBlock = kBlockBytes<P>, kNear = kBlock < 1024 ? kBlock / 2 : 512, kPage = 4096;
  for (std::int64_t blocks = 0; blocks * kBlockTurns<P> <= all && blocks * kBlock < 4 * kPage; ++blocks) {
    const std::int64_t from_half = std::int64_t((apart + std::uintptr_t(blocks * kBlock)) % kPage) - kPage / 2;
    if (-kNear <= from_half && from_half <= kNear) return blocks * kBlockTurns<P>;
  }
  return 0;
}

/// A run of panels, read turn by turn.
template <Packing P>
struct Stream {
  const std::uint8_t* run;
  const std::uint8_t* after;  ///< what is read after the run, null: what lies behind it
  std::int64_t count, bytes;  ///< panels, and of each
  const std::uint8_t* at;     ///< the panel
  std::int64_t turn;          ///< of it, the next one
  F32 sum;

  Stream(const PanelRuns& runs, int i, std::int64_t k32)
      : run(static_cast<const std::uint8_t*>(runs.panels[i])),
        after(static_cast<const std::uint8_t*>(runs.next[i])),
        count(runs.count),
        bytes(k32 / kFormat<P>.block * kFormat<P>.block_bytes()) {}
  void begin(std::int64_t panel) {
    at = run + panel * bytes;
    turn = 0;
    sum = F32::set(0.f);
  }
};

/// Fetches what a stream reads kFetchAhead bytes behind a turn.
template <Packing P>
struct Fetch {
  std::int64_t after;        ///< how far from a turn's begin
  const std::uint8_t* tail;  ///< from here on; before, kFetchAhead

  FASTKV_INLINE void begin(const Stream<P>& s) {
    const std::uint8_t* const end = s.at + s.bytes;
    tail = end - kFetchAhead<P>;
    after = end == s.run + s.count * s.bytes && s.after ? s.after - tail : kFetchAhead<P>;
  }
  FASTKV_INLINE void operator()(const std::uint8_t* turn) const {
    fetch<int(kTurn<P>)>(turn + (turn < tail ? kFetchAhead<P> : after));
  }
};

/// A block's sums, which its factors d and m still have to multiply.
struct BlockSums {
  F32 d = F32::set(0.f), m = F32::set(0.f);
};

/// product(streams at once, their blocks, whether those are odd ones of their panels, turn of the block, turn of the
/// panel, their sums) for the next `count` turns of each stream, by turns, and end(block, odd, sums, sum of the panel)
/// after each block; whole blocks. Without fetching the streams are in step, from their panels' begin on.
template <Packing P, bool Fetches, class Sums, class Product, class End, class... Streams>
FASTKV_INLINE void advance(std::int64_t count, Product&& product, End&& end, Streams&... streams) {
  constexpr int kStreams = sizeof...(Streams);
  Stream<P>* const all[] = {&streams...};
  F32 sum[kStreams];
  const std::uint8_t* at[kStreams];
  std::int64_t turn[kStreams];
  Fetch<P> fetch[kStreams];
  unroll<kStreams>([&](auto i) __attribute__((always_inline)) {
    sum[i] = all[i]->sum;
    turn[i] = all[i]->turn;
    at[i] = all[i]->at + turn[i] / kBlockTurns<P> * kBlockBytes<P>;
    fetch[i].begin(*all[i]);
  });
  const auto advance_block = [&](std::int64_t t, auto&& odd) __attribute__((always_inline)) {
    Sums sums[kStreams];
    for (int g = 0; g < kBlockTurns<P>; ++g) {
      if constexpr (Fetches) {
        // before all products: behind those of the first stream, q4_0 came at 94 % of the read loop, so at 97 %
        unroll<kStreams>([&](auto i) __attribute__((always_inline)) { fetch[i](at[i] + g * kTurn<P>); });
        unroll<kStreams>([&](auto i) __attribute__((always_inline)) {
          product(Index<1>{}, at + i, odd(i), g, turn[i] + t + g, sums + i);
        });
      } else {
        product(Index<kStreams>{}, at, odd(Index<0>{}), g, turn[0] + t + g, sums);
      }
    }
    unroll<kStreams>([&](auto i) __attribute__((always_inline)) {
      end(at[i], odd(i), sums[i], sum[i]);
      at[i] += kBlockBytes<P>;
    });
  };
  std::int64_t t = 0;
  if constexpr (!Fetches && kBlockTurns<P> == 1) {
    // Two by two, so that it is known where d lies: the fewer instructions a line takes, the more lines a core waits
    // for at once. q4_0 came from memory 5 % faster, from L2 at 80 GB/s instead of 78.
    for (; t + 2 <= count; t += 2) {
      advance_block(
          t, [](auto) __attribute__((always_inline)) { return false; });
      advance_block(
          t + 1, [](auto) __attribute__((always_inline)) { return true; });
    }
  }
  for (; t < count; t += kBlockTurns<P>)
    advance_block(
        t, [&](auto i) __attribute__((always_inline)) { return ((turn[i] + t) & kBlockTurns<P>) != 0; });
  unroll<kStreams>([&](auto i) __attribute__((always_inline)) {
    all[i]->sum = sum[i];
    all[i]->turn = turn[i] + count;
  });
}

/// Where codes lie at the top of a byte, their products with inputs are summed as they are, 2^kHigh times what they
/// should be, and the sum is shifted: it saves a shift of each. 0: nowhere, or the level's products of such bytes would
/// not fit.
constexpr int high_shift(const Format& f) {
  if (kPairsIn16Bits) return 0;
  if (f.sixes) return 2;
  return f.nibbles && f.bit < 0 && !f.levels ? 4 : 0;
}
template <Packing P>
inline constexpr int kHigh = high_shift(kFormat<P>);

/// Four inputs for N panels: where they lie for one, in every lane of a register for several.
template <int N>
FASTKV_INLINE auto four_inputs(const std::int8_t* q) {
  if constexpr (N == 1)
    return q;
  else
    return I32::set(read<std::int32_t>(q));
}

/// dot[i] = Σ q·(w − zero) of one scale's inputs and the weights of panel i of N, exact; `sum` = Σ q.
///
/// Vectors of codes at the top of a byte are loaded once, each where it is used: a Zen 4 core loads one vector a cycle,
/// and q4_0 came from L2 at 73 GB/s when g++ 12 read memory for each use, so at 81. All four loaded before the products
/// came from there at 64 and from memory 20 to 30 % slower.
template <Packing P, int Part, int N>
FASTKV_INLINE void dot_part(const std::uint8_t* const (&planes)[N], const std::int8_t* q, std::int32_t sum,
                            I32 (&dot)[N]) {
  const I32 start = I32::set(-kFormat<P>.zero * sum);
  I32 high[N];
  const auto each = [](auto&& fn) __attribute__((always_inline)) { unroll<N>(fn); };
  const auto load = [&](auto i, int at) __attribute__((always_inline)) {
    return in_register(I32::load(planes[i] + 64 * at));
  };
  each([&](auto i) __attribute__((always_inline)) { dot[i] = start, high[i] = I32::set(0); });
  if constexpr (kHigh<P> == 0) {
    constexpr int kSteps = 8 / Block<P>::parts;
    unroll<kSteps>([&](auto step) __attribute__((always_inline)) {
      constexpr int j = Part * kSteps + decltype(step)::value;
      const auto a = four_inputs<N>(q + 4 * j);
      each([&](auto i) __attribute__((always_inline)) {
        dot[i] = dot_i8<kFormat<P>.wide()>(dot[i], codes<P, j>(planes[i]), a);
      });
    });
    return;
  } else if constexpr (kFormat<P>.nibbles) {
    unroll<4>([&](auto j) __attribute__((always_inline)) {
      const auto a = four_inputs<N>(q + 4 * j), b = four_inputs<N>(q + 16 + 4 * j);
      each([&](auto i) __attribute__((always_inline)) {
        const I32 both = load(i, j);
        dot[i] = dot_i8<false>(dot[i], both & byte_mask(0x0f), a);
        high[i] = dot_i8<true>(high[i], both & byte_mask(0xf0), b);
      });
    });
  } else {
    I32 sixes[N][3];
    unroll<3>([&](auto j) __attribute__((always_inline)) {
      const auto a = four_inputs<N>(q + 16 * Part + 4 * j);
      each([&](auto i) __attribute__((always_inline)) {
        sixes[i][j] = load(i, 3 * Part + j);
        dot[i] = dot_i8<false>(dot[i], sixes[i][j] & byte_mask(0x3f), a);
      });
    });
    const auto a = four_inputs<N>(q + 16 * Part + 12);
    each([&](auto i) __attribute__((always_inline)) {
      const I32 most = select(byte_mask(0xc0), sixes[i][0], shift_right<2>(sixes[i][1]));
      const I32 last = select(byte_mask(0xf0), most, shift_right<4>(sixes[i][2])) & byte_mask(0xfc);
      high[i] = dot_i8<true>(high[i], last, a);
    });
  }
  each([&](auto i) __attribute__((always_inline)) { dot[i] = dot[i] + shift_right_signed<kHigh<P>>(high[i]); });
}

/// Blocks of 256 multiply by their integer scales as integers: |Σ| < 2^25. So q6_k comes from L2 at 58 GB/s a Zen 4
/// core instead of 52; its codes as sixes instead of nibbles and crumbs, the steps at the top of a byte unshifted:
/// at 66.
template <Packing P, bool Fetches, class... Streams>
[[gnu::noinline]] void gemv_i8_turns(std::int64_t count, const I8Rows& a, Streams&... streams) {
  constexpr Format f = kFormat<P>;
  const auto product = [&](auto n, const std::uint8_t* const* at, bool odd, int g, std::int64_t turn, BlockSums* sums)
      __attribute__((always_inline)) {
    constexpr int kN = decltype(n)::value;
    const auto each = [](auto&& fn) __attribute__((always_inline)) { unroll<kN>(fn); };
    const std::uint8_t* planes[kN];
    each([&](auto i) __attribute__((always_inline)) { planes[i] = Block<P>(at[i], odd).planes(g); });
    const std::int8_t* q = a.q + turn * kGroup;
    const std::int32_t* halves = a.sum + 2 * turn;
    const std::int32_t sum = halves[0] + halves[1];
    I32 dot[kN], one[kN];
    unroll<Block<P>::parts>([&](auto part) __attribute__((always_inline)) {
      constexpr int kPart = decltype(part)::value;
      dot_part<P, kPart>(planes, q, Block<P>::parts == 1 ? sum : halves[kPart], one);
      each([&](auto i) __attribute__((always_inline)) {
        if constexpr (f.block == 256)
          one[i] = one[i] * I32::from_i8(Block<P>(at[i], odd).sc + (g * Block<P>::parts + kPart) * kLanes);
        dot[i] = kPart == 0 ? one[i] : dot[i] + one[i];
      });
    });
    const F32 scale = F32::set(a.scale[turn]);
    each([&](auto i) __attribute__((always_inline)) {
      sums[i].d = f.block == 32 ? to_float(dot[i]) * scale : fma(to_float(dot[i]), scale, sums[i].d);
      if constexpr (f.affine) {  // w = d·q + m in blocks of 32, d·sc·q − m·mn in those of 256
        const F32 inputs = scale * F32::set(float(f.block == 32 ? sum : -sum));
        sums[i].m = f.block == 32 ? inputs : fma(F32::from_u8(Block<P>(at[i], odd).mn + g * kLanes), inputs, sums[i].m);
      }
    });
  };
  const auto end =
      [](const std::uint8_t* at, bool odd, const BlockSums& sums, F32& sum) __attribute__((always_inline)) {
    const Block<P> block(at, odd);
    sum = fma(sums.d, block.d, sum);
    if constexpr (kFormat<P>.affine) sum = fma(sums.m, block.m, sum);
  };
  advance<P, Fetches, BlockSums>(count, product, end, streams...);
}

template <Packing P, bool Fetches, class... Streams>
[[gnu::noinline]] void gemv_f32_turns(std::int64_t count, const float* x, Streams&... streams) {
  struct Sum {
    F32 all = F32::set(0.f);
  };
  const auto product = [&](auto n, const std::uint8_t* const* at, bool odd, int g, std::int64_t turn, Sum* sums)
      __attribute__((always_inline)) {
    const float* inputs = x + turn * kTurnInputs<P>;
    const auto each = [](auto&& fn) __attribute__((always_inline)) { unroll<decltype(n)::value>(fn); };
    if constexpr (kFormat<P>.is_float()) {
      unroll<kTurnInputs<P>>([&](auto k) __attribute__((always_inline)) {
        const F32 input = F32::set(inputs[k]);
        each([&](auto i) __attribute__((always_inline)) {
          sums[i].all = fma(input, load_weights<P>(at[i] + k * kLanes * kFormat<P>.element_bytes), sums[i].all);
        });
      });
    } else {
      each([&](auto i) __attribute__((always_inline)) {
        alignas(64) float weights[kGroup * kLanes];
        decode_group<P>(Block<P>(at[i], odd), g, weights);
        for (int k = 0; k < kGroup; ++k)
          sums[i].all = fma(F32::set(inputs[k]), F32::load(weights + k * kLanes), sums[i].all);
      });
    }
  };
  const auto end = [](const std::uint8_t*, bool, const Sum& block, F32& sum) __attribute__((always_inline)) {
    sum = sum + block.all;
  };
  advance<P, Fetches, Sum>(count, product, end, streams...);
}

/// Where kernels do not fetch: panels below so many bytes are read alone, of larger ones those of a run's halves in
/// step. A Zen 4's prefetchers do best with one stream whose inputs stay in L1 (32 KiB), and badly when the inputs come
/// again from L2 for each panel. In shares of the read loop (55 GB/s), alone and in step: q4_0 of 2048 inputs (18 KiB)
/// 98 to 102 and 95 %, 4096 94 and 94, 8192 89 and 96, 14336 78 and 95; q6_k of 2048 (26 KiB) 96 and 90, 4096 82 and
/// 92, 8192 75 and 94; q8_0 of 2048 (34 KiB) 84 and 96, 8192 80 and 99. Neighbours in step instead of halves came at 64
/// to 90 %. Parts of 9 to 18 KiB of each panel by turns, so that the inputs stay: at 40 to 60 %, because what is asked
/// for ahead lies behind the part's end.
///
/// Two runs far apart (gate and up, the halves of the output head) by turns of 4 blocks, some 1200 bytes, took 0.96 of
/// a token of 1B in quiet minutes (50 to 60 GB/s; turns of 1 or 2 blocks 0.99), 1.00 to 1.02 where others used the
/// memory, and 1.04 to 1.13 in minutes when reading in four streams came 10 % slower than in two.
inline constexpr std::int64_t kAlone = 32 << 10;

/// All of the runs: turns(count, whether they fetch, streams...) advances them. The outputs of the second lie behind
/// those of the first.
template <Packing P, class Turns>
FASTKV_INLINE void for_panels(const PanelRuns& runs, std::int64_t k32, float* out, Turns&& turns) {
  const std::int64_t all = k32 / kTurnInputs<P>;
  const auto one_by_one = [&](auto fetches, int r, std::int64_t from) {
    Stream<P> run(runs, r, k32);
    for (std::int64_t i = from; i < runs.count; ++i) {
      run.begin(i);
      turns(all, fetches, run);
      run.sum.store(out + (r * runs.count + i) * kLanes);
    }
  };
  if (!fetches_ahead) {
    constexpr Index<0> kPlain;
    for (int r = 0; r < 2 && runs.panels[r]; ++r) {
      Stream<P> first(runs, r, k32), second(runs, r, k32);
      const std::int64_t half = first.bytes < kAlone ? 0 : runs.count / 2;
      for (std::int64_t i = 0; i < half; ++i) {
        first.begin(i), second.begin(half + i);
        turns(all, kPlain, first, second);
        first.sum.store(out + (r * runs.count + i) * kLanes);
        second.sum.store(out + (r * runs.count + half + i) * kLanes);
      }
      one_by_one(kPlain, r, 2 * half);
    }
    return;
  }
  constexpr Index<1> kFetches;
  if (!runs.panels[1]) return one_by_one(kFetches, 0, 0);
  Stream<P> first(runs, 0, k32), second(runs, 1, k32);
  const std::int64_t lead = turns_ahead<P>(
      reinterpret_cast<std::uintptr_t>(runs.panels[0]) - reinterpret_cast<std::uintptr_t>(runs.panels[1]), all);
  for (std::int64_t i = 0; i <= runs.count; ++i) {  // the second one is still in its panel i − 1
    if (i < runs.count) first.begin(i);
    if (lead > 0)
      i == 0            ? turns(lead, kFetches, first)
      : i == runs.count ? turns(lead, kFetches, second)
                        : turns(lead, kFetches, first, second);
    if (i > 0) second.sum.store(out + (runs.count + i - 1) * kLanes);
    if (i == runs.count) break;
    second.begin(i);
    turns(all - lead, kFetches, first, second);
    first.sum.store(out + i * kLanes);
  }
}

template <Packing P>
void gemv_i8_as(const PanelRuns& runs, std::int64_t k32, const I8Rows& a, float* out) {
  if constexpr (!kFormat<P>.is_float()) {
    for_panels<P>(
        runs, k32, out, [&](std::int64_t count, auto fetches, auto&... streams) __attribute__((always_inline)) {
          gemv_i8_turns<P, fetches>(count, a, streams...);
        });
  }
}

template <Packing P>
void gemv_f32_as(const PanelRuns& runs, std::int64_t k32, const float* x, float* out) {
  for_panels<P>(
      runs, k32, out, [&](std::int64_t count, auto fetches, auto&... streams) __attribute__((always_inline)) {
        gemv_f32_turns<P, fetches>(count, x, streams...);
      });
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
