// The loops in assembly: the level's instructions without its compiler flags, so this is one baseline unit.
#include "simd/peaks.hpp"

#include <emmintrin.h>

namespace fastkv::simd {
namespace {

// Twelve accumulators hide a latency of 5 cycles at two instructions a cycle (vpdpbusd); registers 12 to 15 are inputs.
#define FASTKV_TWELVE(op, r) \
  op(r, 0) op(r, 1) op(r, 2) op(r, 3) op(r, 4) op(r, 5) op(r, 6) op(r, 7) op(r, 8) op(r, 9) op(r, 10) op(r, 11)
#define FASTKV_LOOP(name, clear, body, end)                                                                       \
  void name(std::int64_t rounds) {                                                                                \
    asm volatile(clear "1:\n\t" body body "sub $1, %0\n\tjnz 1b\n\t" end                                          \
                 : "+r"(rounds)                                                                                   \
                 :                                                                                                \
                 : "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", \
                   "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");                                                  \
  }
#define FASTKV_CLEAR_XMM(r, i) "pxor %%xmm" #i ", %%xmm" #i "\n\t"
#define FASTKV_CLEAR_YMM(r, i) "vpxor %%xmm" #i ", %%xmm" #i ", %%xmm" #i "\n\t"  // clears the whole register
#define FASTKV_CLEAR_SSE FASTKV_TWELVE(FASTKV_CLEAR_XMM, x) FASTKV_CLEAR_XMM(x, 14) FASTKV_CLEAR_XMM(x, 15)
#define FASTKV_CLEAR_AVX FASTKV_TWELVE(FASTKV_CLEAR_YMM, y) FASTKV_CLEAR_YMM(y, 14) FASTKV_CLEAR_YMM(y, 15)

// Separate chains of both halves of a multiply-add: their sum cannot be faster.
#define FASTKV_MUL_ADD_SSE                                                                               \
  "mulps %%xmm15, %%xmm0\n\taddps %%xmm15, %%xmm1\n\tmulps %%xmm15, %%xmm2\n\taddps %%xmm15, %%xmm3\n\t" \
  "mulps %%xmm15, %%xmm4\n\taddps %%xmm15, %%xmm5\n\tmulps %%xmm15, %%xmm6\n\taddps %%xmm15, %%xmm7\n\t" \
  "mulps %%xmm15, %%xmm8\n\taddps %%xmm15, %%xmm9\n\tmulps %%xmm15, %%xmm10\n\taddps %%xmm15, %%xmm11\n\t"
#define FASTKV_MADD_SSE                                                                                      \
  "pmaddwd %%xmm15, %%xmm0\n\tpaddd %%xmm15, %%xmm1\n\tpmaddwd %%xmm15, %%xmm2\n\tpaddd %%xmm15, %%xmm3\n\t" \
  "pmaddwd %%xmm15, %%xmm4\n\tpaddd %%xmm15, %%xmm5\n\tpmaddwd %%xmm15, %%xmm6\n\tpaddd %%xmm15, %%xmm7\n\t" \
  "pmaddwd %%xmm15, %%xmm8\n\tpaddd %%xmm15, %%xmm9\n\tpmaddwd %%xmm15, %%xmm10\n\tpaddd %%xmm15, %%xmm11\n\t"
// vpmaddubsw and a sum of 16 bits: the fewest instructions that take 32 (64) products to a sum without VNNI.
#define FASTKV_MADD_PAIR(r, a, b)                        \
  "vpmaddubsw %%" #r "mm15, %%" #r "mm14, %%" #r "mm" #a \
  "\n\t"                                                 \
  "vpaddw %%" #r "mm15, %%" #r "mm" #b ", %%" #r "mm" #b "\n\t"
#define FASTKV_MADD_AVX(r)  \
  FASTKV_MADD_PAIR(r, 0, 1) \
  FASTKV_MADD_PAIR(r, 2, 3) \
  FASTKV_MADD_PAIR(r, 4, 5) FASTKV_MADD_PAIR(r, 6, 7) FASTKV_MADD_PAIR(r, 8, 9) FASTKV_MADD_PAIR(r, 10, 11)
#define FASTKV_FMA(r, i) "vfmadd231ps %%" #r "mm15, %%" #r "mm14, %%" #r "mm" #i "\n\t"
#define FASTKV_VEX_DPBUSD(r, i) "%{vex%} vpdpbusd %%" #r "mm15, %%" #r "mm14, %%" #r "mm" #i "\n\t"
#define FASTKV_DPBUSD(r, i) "vpdpbusd %%" #r "mm15, %%" #r "mm14, %%" #r "mm" #i "\n\t"
#define FASTKV_DPBF16(r, i) "vdpbf16ps %%" #r "mm15, %%" #r "mm14, %%" #r "mm" #i "\n\t"

FASTKV_LOOP(mul_add_sse, FASTKV_CLEAR_SSE, FASTKV_MUL_ADD_SSE, "")
FASTKV_LOOP(madd_sse, FASTKV_CLEAR_SSE, FASTKV_MADD_SSE, "")
FASTKV_LOOP(fma_avx2, FASTKV_CLEAR_AVX, FASTKV_TWELVE(FASTKV_FMA, y), "vzeroupper\n\t")
FASTKV_LOOP(madd_avx2, FASTKV_CLEAR_AVX, FASTKV_MADD_AVX(y), "vzeroupper\n\t")
FASTKV_LOOP(dot_avx2_vnni, FASTKV_CLEAR_AVX, FASTKV_TWELVE(FASTKV_VEX_DPBUSD, y), "vzeroupper\n\t")
FASTKV_LOOP(fma_avx512, FASTKV_CLEAR_AVX, FASTKV_TWELVE(FASTKV_FMA, z), "vzeroupper\n\t")
FASTKV_LOOP(madd_avx512, FASTKV_CLEAR_AVX, FASTKV_MADD_AVX(z), "vzeroupper\n\t")
FASTKV_LOOP(dot_avx512_vnni, FASTKV_CLEAR_AVX, FASTKV_TWELVE(FASTKV_DPBUSD, z), "vzeroupper\n\t")
FASTKV_LOOP(dot_avx512_bf16, FASTKV_CLEAR_AVX, FASTKV_TWELVE(FASTKV_DPBF16, z), "vzeroupper\n\t")

/// Six tiles of sums and two of inputs; a product takes 16 cycles of the one tile unit, its result is ready after 52.
void dot_amx_bf16(std::int64_t rounds) {
  struct alignas(64) {
    std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
    std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
  } const config;
#define FASTKV_TDPBF16(r, i) "tdpbf16ps %%tmm7, %%tmm6, %%tmm" #i "\n\t"
#define FASTKV_TILE_ZERO(i) "tilezero %%tmm" #i "\n\t"
#define FASTKV_SIX(op, r) op(r, 0) op(r, 1) op(r, 2) op(r, 3) op(r, 4) op(r, 5)
  asm volatile("ldtilecfg %1\n\t" FASTKV_TILE_ZERO(0) FASTKV_TILE_ZERO(1) FASTKV_TILE_ZERO(2) FASTKV_TILE_ZERO(3)
                   FASTKV_TILE_ZERO(4) FASTKV_TILE_ZERO(5) FASTKV_TILE_ZERO(6) FASTKV_TILE_ZERO(7) "1:\n\t" FASTKV_SIX(
                       FASTKV_TDPBF16, t) FASTKV_SIX(FASTKV_TDPBF16, t) "sub $1, %0\n\tjnz 1b\n\ttilerelease\n\t"
               : "+r"(rounds)
               : "m"(config)
               : "cc");
}

// A round is the body twice: 24 instructions.
constexpr PeakLoop kMulAddSse{"mulps + addps xmm", 24 * 4, mul_add_sse};
constexpr PeakLoop kMaddSse{"pmaddwd + paddd xmm", 12 * 16, madd_sse};
constexpr PeakLoop kFmaAvx2{"vfmadd231ps ymm", 24 * 16, fma_avx2};
constexpr PeakLoop kMaddAvx2{"vpmaddubsw + vpaddw ymm", 12 * 64, madd_avx2};
constexpr PeakLoop kDotAvx2Vnni{"vpdpbusd ymm", 24 * 64, dot_avx2_vnni};
constexpr PeakLoop kFmaAvx512{"vfmadd231ps zmm", 24 * 32, fma_avx512};
constexpr PeakLoop kMaddAvx512{"vpmaddubsw + vpaddw zmm", 12 * 128, madd_avx512};
constexpr PeakLoop kDotAvx512Vnni{"vpdpbusd zmm", 24 * 128, dot_avx512_vnni};
constexpr PeakLoop kDotAvx512Bf16{"vdpbf16ps zmm", 24 * 64, dot_avx512_bf16};

constexpr PeakLoop kDotAmxBf16{"tdpbf16ps", 12 * 16 * 16 * 64, dot_amx_bf16};

constexpr Peaks kScalar{kMulAddSse, kMulAddSse, kMaddSse};
constexpr Peaks kAvx2{kFmaAvx2, kFmaAvx2, kMaddAvx2};
constexpr Peaks kAvx2Vnni{kFmaAvx2, kFmaAvx2, kDotAvx2Vnni};
constexpr Peaks kAvx512{kFmaAvx512, kFmaAvx512, kMaddAvx512};
constexpr Peaks kAvx512Vnni{kFmaAvx512, kFmaAvx512, kDotAvx512Vnni};
constexpr Peaks kAvx512Bf16{kFmaAvx512, kDotAvx512Bf16, kDotAvx512Vnni};
constexpr Peaks kAmxBf16{kFmaAvx512, kDotAmxBf16, kDotAvx512Vnni};

}  // namespace

const Peaks& peaks(Isa isa) {
  switch (isa) {
    case Isa::scalar:
      break;
    case Isa::avx2:
      return kAvx2;
    case Isa::avx2_vnni:
      return kAvx2Vnni;
    case Isa::avx512:
      return kAvx512;
    case Isa::avx512_vnni:
      return kAvx512Vnni;
    case Isa::avx512_bf16:
      return kAvx512Bf16;
    case Isa::amx_bf16:
      return kAmxBf16;
  }
  return kScalar;
}

namespace {

// The loop of a vector width; the compiler takes it for the instructions that `isa` names, whatever the unit's flags.
#define FASTKV_READ_LOOP(name, isa, width)                                                                            \
  template <Reading reading>                                                                                          \
  [[gnu::target(isa)]] std::uint64_t name(const void* data, std::size_t bytes, int streams) {                         \
    using Vector [[gnu::vector_size(width), gnu::may_alias]] = std::uint64_t;                                         \
    const std::size_t part = bytes / std::size_t(streams);                                                            \
    Vector sum[4] = {};                                                                                               \
    for (std::size_t at = 0; at < part; at += 256) {                                                                  \
      for (int s = 0; s < streams; ++s) {                                                                             \
        const char* from = static_cast<const char*>(data) + std::size_t(s) * part + at;                               \
        /* on a Xeon 6, 512 bytes ahead read 35.4 GB/s in two streams, 1024 34.4, 2048 32.4 */                        \
        for (int i = 0; i < 4 && reading == Reading::fetching; ++i) _mm_prefetch(from + 512 + 64 * i, _MM_HINT_T0);   \
        for (int i = 0; i < 256 / width; ++i) sum[i % 4] ^= reinterpret_cast<const Vector*>(from)[i];                 \
      }                                                                                                               \
    }                                                                                                                 \
    const Vector all = sum[0] ^ sum[1] ^ sum[2] ^ sum[3];                                                             \
    std::uint64_t folded = 0;                                                                                         \
    for (int i = 0; i < width / 8; ++i) folded ^= all[i];                                                             \
    return folded;                                                                                                    \
  }
FASTKV_READ_LOOP(read_sse, "sse2", 16)
FASTKV_READ_LOOP(read_avx, "avx", 32)
FASTKV_READ_LOOP(read_avx512, "avx512f", 64)

template <Reading reading>
std::uint64_t read_all(Isa isa, const void* data, std::size_t bytes, int streams) {
  return isa >= Isa::avx512 ? read_avx512<reading>(data, bytes, streams)
         : isa >= Isa::avx2 ? read_avx<reading>(data, bytes, streams)
                            : read_sse<reading>(data, bytes, streams);
}

}  // namespace

std::uint64_t read_streams(Isa isa, const void* data, std::size_t bytes, int streams, Reading reading) {
  return reading == Reading::plain ? read_all<Reading::plain>(isa, data, bytes, streams)
                                   : read_all<Reading::fetching>(isa, data, bytes, streams);
}

}  // namespace fastkv::simd
