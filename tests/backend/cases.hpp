// Shapes, arithmetics and methods that the backend is compared with the oracle on.
#pragma once

#include <ostream>
#include <string>
#include <vector>

#include "fastkv/options.hpp"
#include "reference/oracle.hpp"
#include "simd/isa.hpp"
#include "support/random_model.hpp"

namespace fastkv::test {

/// G = 1, 2, 3, 4, 8; d = 8, 64, 80, 96, 128; odd vocabularies; rows that are no multiple of 32 or 16.
inline std::vector<RandomShape> shapes() {
  std::vector<RandomShape> out;
  //             name       N   D   F  H  K   d    V
  out.push_back({"g1_d64", 3, 96, 160, 2, 2, 64, 131, {DType::f32}, true, false, false});
  out.push_back({"g3_d64", 4, 100, 76, 3, 1, 64, 97, {DType::f32, DType::f16}, false, true, true});
  out.push_back({"g4_d128", 3, 64, 96, 4, 1, 128, 131, {DType::q8_0, DType::q4_0, DType::q4_1}, false, false, true});
  out.push_back({"g8_d80", 3, 64, 96, 8, 1, 80, 101, {DType::q5_0, DType::bf16, DType::q5_1}, true, true, false});
  out.push_back({"g4_d96", 3, 64, 64, 4, 1, 96, 67, {DType::iq4_nl, DType::q8_0}, false, false, false});
  out.push_back({"g2_d8", 4, 64, 172, 8, 4, 8, 101, {DType::f32}, false, true, false});
  out.push_back({"g2_k_quants",
                 3,
                 256,
                 256,
                 4,
                 2,
                 64,
                 101,
                 {DType::q4_k, DType::q6_k, DType::q5_k, DType::q3_k, DType::iq4_xs},
                 false,
                 false,
                 false});
  return out;
}

struct Arithmetic {
  Compute compute;
  Gemm gemm;
  const char* name;
};
inline std::ostream& operator<<(std::ostream& out, const Arithmetic& a) { return out << a.name; }

inline std::vector<Arithmetic> arithmetics() {
  return {{Compute::f32, Gemm::openblas, "f32_openblas"},
          {Compute::f32, Gemm::native, "f32_native"},
          {Compute::bf16, Gemm::native, "bf16"},
          {Compute::int8, Gemm::native, "int8"}};
}

/// What `compute` rounds.
inline Rounding rounding_of(Compute compute) {
  if (compute == Compute::f32) return Rounding::f32();
  if (compute == Compute::bf16) return Rounding::bf16();
  return Rounding::int8();
}

/// Levels this CPU runs.
inline std::vector<simd::Isa> isas() {
  std::vector<simd::Isa> out;
  for (simd::Isa isa : simd::kIsas)
    if (simd::supported(isa)) out.push_back(isa);
  return out;
}

struct MethodCase {
  std::string name;
  std::int64_t n;
  MethodParams method;
};

/// Lengths below, at and just above the window, the budget and the TSP limit; every option once.
inline std::vector<MethodCase> method_cases(int n_layer) {
  std::vector<MethodCase> out;
  auto add = [&](const std::string& name, std::int64_t n, auto change) {
    MethodParams m = fastkv_defaults(n_layer);
    m.tsp_layer = 1;
    change(m);
    out.push_back({name + "_n" + std::to_string(n), n, m});
  };
  out.push_back({"full_n1", 1, full_method()});
  out.push_back({"full_n67", 67, full_method()});
  for (std::int64_t n : {1, 5, 8, 9, 23, 24, 25, 39, 40, 41, 61}) {
    add("constant", n, [](MethodParams& m) {
      m.proportional = m.tsp_by_rate = false;
      m.kv_budget = 24;
      m.tsp_tokens = 40;
    });
  }
  for (std::int64_t n : {39, 41, 131}) {
    add("rate", n, [](MethodParams& m) {
      m.retention = 0.2;
      m.tsp_rate = 0.4;
    });
  }
  add("options", 57, [](MethodParams& m) {
    m.retention = 0.4;
    m.tsp_rate = 0.6;
    m.window = 4;
    m.tsp_window = 9;
    m.kernel = 5;
    m.tsp_shift = 1;
    m.pooling = Pooling::avg;
    m.group_reduce = GroupReduce::max;
    m.sinks = 3;
  });
  add("budget_beyond_prompt", 60, [](MethodParams& m) {
    m.proportional = m.tsp_by_rate = false;
    m.kv_budget = 80;
    m.tsp_tokens = 20;
  });
  add("retention_above_rate", 50, [](MethodParams& m) {
    m.retention = 0.5;
    m.tsp_rate = 0.3;
  });
  add("layer0_tokens", 66, [](MethodParams& m) {
    m.tsp_layer = 0;
    m.tsp_by_rate = false;
    m.tsp_tokens = 33;
    m.retention = 0.25;
    m.kernel = 1;
  });
  add("shifted", 71, [](MethodParams& m) {  // the same queries score both, pooled differently
    m.retention = 0.3;
    m.tsp_rate = 0.5;
    m.kernel = 9;
    m.tsp_shift = 4;
  });
  add("last_layer", 49, [n_layer](MethodParams& m) {
    m.tsp_layer = n_layer - 1;
    m.retention = 0.3;
    m.tsp_rate = 0.5;
  });
  return out;
}

}  // namespace fastkv::test
