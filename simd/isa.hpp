// The instruction-set levels fastkv has kernels for, and which of them this CPU and OS can run.
#pragma once

namespace fastkv::simd {

/// A level is exactly a set of compiler flags (simd/CMakeLists.txt); consecutive, worst first.
enum class Isa {
  scalar,       ///< x86-64 baseline (SSE2)
  avx2,         ///< AVX2 FMA F16C BMI2
  avx2_vnni,    ///< + AVX-VNNI
  avx512,       ///< AVX2 level + AVX-512 F CD BW DQ VL
  avx512_vnni,  ///< + AVX512-VNNI
  avx512_bf16,  ///< + AVX512-BF16
  amx_bf16,     ///< + AMX-TILE AMX-BF16
};
inline constexpr Isa kIsas[] = {Isa::scalar,      Isa::avx2,        Isa::avx2_vnni, Isa::avx512,
                                Isa::avx512_vnni, Isa::avx512_bf16, Isa::amx_bf16};

const char* name(Isa isa);                   ///< "avx512_vnni"
bool from_name(const char* text, Isa& isa);  ///< false: no such level
/// The CPU has every instruction of the level and the OS saves its registers. For amx_bf16 the first call asks the
/// kernel to let this process, all its threads, use the tiles.
bool supported(Isa isa);
/// Whether bfloat16 dot products outrun float32 FMAs: a fact of the CPU, not of a level. On AMD's Zen 4 and 5 twice the
/// rate; Intel's cores run vdpbf16ps at half the rate of FMAs.
bool fast_bf16_dots();
/// Whether kernels ask for memory ahead of its use: a fact of the CPU too. Two Granite Rapids cores read 39 GB/s so, 32
/// without; a Zen 4's prefetchers do better alone, where a token of the 1B shape in Q4_0 took 3 to 9 % less time.
/// Tests set it, to run both ways on every CPU.
[[gnu::visibility("hidden")]] extern bool fetches_ahead;
Isa best_isa();  ///< the highest supported level

}  // namespace fastkv::simd
