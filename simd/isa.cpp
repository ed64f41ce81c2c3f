// Detection of instruction-set levels from CPUID and the registers that the operating system saves.
#include "simd/isa.hpp"

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstring>

namespace fastkv::simd {
namespace {

constexpr const char* kNames[] = {"scalar", "avx2", "avx2_vnni", "avx512", "avx512_vnni", "avx512_bf16", "amx_bf16"};

/// Bit `bit` of register `reg` (0 eax … 3 edx) of a CPUID leaf; false where the leaf does not exist.
bool cpuid_bit(unsigned leaf, unsigned subleaf, int reg, int bit) {
  unsigned r[4];
  return __get_cpuid_count(leaf, subleaf, &r[0], &r[1], &r[2], &r[3]) && ((r[reg] >> bit) & 1);
}

// __builtin_cpu_supports also checks that the operating system saves the registers; AVX2 there covers F16C and
// AVX-VNNI, whose names clang 14 does not know.
bool has_avx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2") &&
         cpuid_bit(1, 0, 2, 29);
}
bool has_avx_vnni() { return cpuid_bit(7, 1, 0, 4); }
bool has_avx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512cd") &&
         __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

bool has_avx512_bf16() {
  return has_avx2() && has_avx512() && __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bf16");
}

// The operating system saves the tiles (XCR0 bits 17 and 18), and this process may use them: Linux wants to be asked,
// as they make every thread's saved state 8 KiB larger.
bool has_amx_bf16() {
  constexpr unsigned kTiles = 3u << 17;
  if (!cpuid_bit(7, 0, 3, 24) || !cpuid_bit(7, 0, 3, 22) || !cpuid_bit(1, 0, 2, 27) ||
      !cpuid_bit(7, 0, 2, 1))  // AVX512-VBMI, which every CPU with AMX has
    return false;
  unsigned low, high;
  asm("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  if ((low & kTiles) != kTiles) return false;
  constexpr int kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  static const bool permitted = syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
  return permitted;
}

}  // namespace

const char* name(Isa isa) { return kNames[int(isa)]; }

bool from_name(const char* text, Isa& isa) {
  for (const Isa candidate : kIsas) {
    if (std::strcmp(text, name(candidate)) == 0) {
      isa = candidate;
      return true;
    }
  }
  return false;
}

bool supported(Isa isa) {
  switch (isa) {
    case Isa::scalar:
      return true;
    case Isa::avx2:
      return has_avx2();
    case Isa::avx2_vnni:
      return has_avx2() && has_avx_vnni();
    case Isa::avx512:
      return has_avx2() && has_avx512();
    case Isa::avx512_vnni:
      return has_avx2() && has_avx512() && __builtin_cpu_supports("avx512vnni");
    case Isa::avx512_bf16:
      return has_avx512_bf16();
    case Isa::amx_bf16:
      return has_avx512_bf16() && has_amx_bf16();
  }
  return false;
}

bool fetches_ahead = !__builtin_cpu_is("amd");

bool fast_bf16_dots() { return supported(Isa::avx512_bf16) && __builtin_cpu_is("amd"); }

Isa best_isa() {
  Isa best = Isa::scalar;
  for (const Isa isa : kIsas) {
    if (supported(isa)) best = isa;
  }
  return best;
}

}  // namespace fastkv::simd
