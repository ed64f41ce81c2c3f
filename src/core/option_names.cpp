// Names of option values and stages of a run, as the command line and the reports spell them.
#include "fastkv/options.hpp"
#include "fastkv/stats.hpp"

namespace fastkv {

const char* name(NumaMode mode) {
  switch (mode) {
    case NumaMode::off: return "off";
    case NumaMode::isolate: return "isolate";
    case NumaMode::distribute: return "distribute";
    case NumaMode::interleave: return "interleave";
    case NumaMode::mirror: return "mirror";
    case NumaMode::numactl: return "numactl";
    case NumaMode::automatic: return "auto";
  }
  return "?";
}

const char* name(Compute compute) {
  switch (compute) {
    case Compute::automatic: return "auto";
    case Compute::f32: return "f32";
    case Compute::bf16: return "bf16";
    case Compute::int8: return "int8";
  }
  return "?";
}

const char* name(CacheType type) {
  switch (type) {
    case CacheType::automatic: return "auto";
    case CacheType::f32: return "f32";
    case CacheType::f16: return "f16";
    case CacheType::bf16: return "bf16";
    case CacheType::q8_0: return "q8_0";
  }
  return "?";
}

const char* name(Stage stage) {
  switch (stage) {
    case Stage::unpack: return "unpack";
    case Stage::gemm: return "gemm";
    case Stage::attention: return "attention";
    case Stage::scores: return "scores";
    case Stage::selection: return "selection";
    case Stage::store: return "store";
    case Stage::rest: return "rest";
    case Stage::wait: return "wait";
  }
  return "?";
}

}  // namespace fastkv
