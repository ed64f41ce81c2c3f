// Choosing the kernel table: the best level of this CPU, or the one that is asked for.
#include "simd/kernels.hpp"

#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "simd/isa/tables.hpp"

namespace fastkv::simd {
namespace {

/// `level` with the entries of `base` where it has none.
KernelTable inherit(const KernelTable& level, const KernelTable& base) {
  constexpr std::size_t kEntries = sizeof(KernelTable) / sizeof(void*);
  static_assert(sizeof(KernelTable) == kEntries * sizeof(void*));
  const void *own[kEntries], *inherited[kEntries];
  std::memcpy(own, static_cast<const void*>(&level), sizeof own);
  std::memcpy(inherited, static_cast<const void*>(&base), sizeof inherited);
  for (std::size_t i = offsetof(KernelTable, unpack_i8) / sizeof(void*); i < kEntries; ++i)
    if (!own[i]) own[i] = inherited[i];
  KernelTable table;
  std::memcpy(static_cast<void*>(&table), own, sizeof table);
  return table;
}

}  // namespace

const KernelTable& kernels(Isa isa) {
  switch (isa) {
    case Isa::scalar:
      break;
    case Isa::avx2:
      return kTableAvx2;
    case Isa::avx2_vnni:
      return kTableAvx2Vnni;
    case Isa::avx512:
      return kTableAvx512;
    case Isa::avx512_vnni:
      return kTableAvx512Vnni;
    case Isa::avx512_bf16:
      return kTableAvx512Bf16;
    case Isa::amx_bf16: {
      static const KernelTable table = inherit(kTableAmxBf16, kTableAvx512Bf16);
      return table;
    }
  }
  return kTableScalar;
}

bool choose_isa(const char* forced, Isa& isa, char message[256]) {
  const char* source = "the ISA setting";
  const char* text = forced;
  if (!text) {
    source = "FASTKV_ISA";
    text = std::getenv("FASTKV_ISA");
  }
  if (!text || !*text) {
    isa = best_isa();
    return true;
  }
  Isa wanted = Isa::scalar;
  const bool known = from_name(text, wanted);
  if (known && supported(wanted)) {
    isa = wanted;
    return true;
  }
  char list[112] = "";
  for (const Isa candidate : kIsas) {
    if (!supported(candidate)) continue;
    if (*list) std::strcat(list, ", ");
    std::strcat(list, name(candidate));
  }
  // At most 48 bytes of the text are shown, so that the list always fits; control characters would break the line.
  char shown[49];
  std::snprintf(shown, sizeof shown, "%s", text);
  for (char& c : shown) {
    if ((c > 0 && c < ' ') || c == 127) c = '?';
  }
  std::snprintf(message, 256, "%s: %s '%s'; this CPU can run: %s", source,
                known ? "this CPU cannot run" : "unknown instruction set", shown, list);
  return false;
}

}  // namespace fastkv::simd
