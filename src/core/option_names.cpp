// Names of option values, as the command line spells them.
#include "fastkv/options.hpp"

namespace fastkv {

const char* name(NumaMode mode) {
  switch (mode) {
    case NumaMode::off: return "off";
    case NumaMode::isolate: return "isolate";
    case NumaMode::distribute: return "distribute";
    case NumaMode::interleave: return "interleave";
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

const char* name(MethodName method) {
  switch (method) {
    case MethodName::full: return "full";
    case MethodName::fastkv: return "fastkv";
  }
  return "?";
}

const char* name(Pooling pooling) { return pooling == Pooling::max ? "max" : "avg"; }
const char* name(GroupReduce reduce) { return reduce == GroupReduce::sum ? "sum" : "max"; }

}  // namespace fastkv
