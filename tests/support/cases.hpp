// Shapes, arithmetics and methods that backends are compared with the oracle on.
#pragma once

#include <initializer_list>
#include <numeric>
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

/// The other methods, at lengths below, at and above the window and the budget; every option of each once. A prompt of
/// 131 meets column sums in tiles (more than 64 rows, more than 128/G positions).
inline std::vector<MethodCase> rival_cases(const ModelConfig& config) {
  using enum MethodName;
  std::vector<MethodCase> out;
  auto add = [&](MethodName method, const std::string& what, std::initializer_list<std::int64_t> lengths, auto change) {
    for (std::int64_t n : lengths) {
      MethodParams m = method_defaults(method, config.n_layer);
      m.filter_layer = 1;
      for (int i = 0; method == headkv && i < config.n_layer * config.n_head; ++i)
        m.head_shares.push_back(1 + i * 7 % 11);
      const double sum = std::accumulate(m.head_shares.begin(), m.head_shares.end(), 0.0);
      for (double& share : m.head_shares) share /= sum;
      change(m);
      out.push_back({std::string(name(method)) + "_" + what + "_n" + std::to_string(n), n, m});
    }
  };
  const auto budget = [](std::int64_t rows) {
    return [rows](MethodParams& m) { m.proportional = false, m.kv_budget = rows; };
  };
  const auto retention = [](double share) { return [share](MethodParams& m) { m.retention = share; }; };
  const auto per_group = [](MethodParams& m) {
    m.granularity = Granularity::kv_head;
    m.retention = 0.3;
  };
  add(snapkv, "budget24", {1, 8, 9, 23, 24, 25, 61}, budget(24));
  add(snapkv, "options", {57}, [&](MethodParams& m) {
    per_group(m);
    m.window = 4, m.kernel = 5, m.sinks = 3, m.pooling = Pooling::avg;
  });
  add(snapkv, "group_max", {66}, [&](MethodParams& m) { per_group(m), m.group_reduce = GroupReduce::max; });
  add(snapkv, "sinks", {10, 14}, [](MethodParams& m) { m.retention = 0.01, m.sinks = 5; });
  add(streamingllm, "tenth", {1, 4, 5, 6, 61}, retention(0.1));
  add(streamingllm, "no_sinks", {24, 25},
      [](MethodParams& m) { m.proportional = false, m.kv_budget = 24, m.sinks = 0; });
  add(h2o, "fifth", {9, 131}, retention(0.2));
  add(h2o, "budget24", {23, 24, 25}, budget(24));
  add(h2o, "reference", {61, 131}, [](MethodParams& m) { m.retention = 0.2, m.h2o_mask = H2oMask::reference; });
  add(h2o, "options", {71}, [&](MethodParams& m) {
    per_group(m);
    m.h2o_mask = H2oMask::reference, m.sinks = 2, m.window = 3, m.group_reduce = GroupReduce::max;
  });
  add(gemfilter, "budget20", {1, 19, 20, 21, 131}, budget(20));
  add(gemfilter, "layer0", {40}, [](MethodParams& m) { m.filter_layer = 0, m.retention = 0.4; });
  add(gemfilter, "last_layer", {33}, [&](MethodParams& m) { m.filter_layer = config.n_layer - 1, m.retention = 0.01; });
  add(pyramidinfer, "60", {1, 2, 61, 100}, [](MethodParams&) {});
  add(pyramidinfer, "many_rows", {160}, [](MethodParams& m) { m.recent = 0.5, m.delta = 0.1, m.gamma = 3; });
  add(pyramidinfer, "one_row", {90}, [](MethodParams& m) { m.recent = 0.01, m.delta = 0.5; });
  add(pyramidinfer, "no_decay", {80}, [](MethodParams& m) { m.delta = 1; });
  add(headkv, "budget20", {8, 19, 20, 61}, budget(20));
  add(headkv, "group", {90}, per_group);
  add(pyramidkv, "budget24", {23, 24, 31, 32, 61}, budget(24));
  add(pyramidkv, "fifth", {131}, retention(0.2));
  add(adakv, "budget24", {9, 24, 25, 61}, budget(24));
  add(adakv, "sinks", {10, 90}, [](MethodParams& m) { m.sinks = 5; });
  add(tova, "fifth", {1, 2, 61}, retention(0.2));
  add(tova, "sinks", {5, 30}, [](MethodParams& m) { m.sinks = 4; });
  return out;
}

/// A tiny model for prompts of a thousand tokens.
inline RandomShape long_shape() { return {"long", 2, 32, 32, 4, 2, 8, 67, {DType::q8_0}, false, false, false}; }

/// Beyond 128 keys of attention, 512 of a decode step, 1024 scores.
inline std::vector<MethodCase> long_cases(int n_layer) {
  MethodParams fastkv = fastkv_defaults(n_layer);
  fastkv.retention = 0.5;
  fastkv.tsp_rate = 0.6;
  return {{"full", 1053, full_method()}, {"fastkv", 1053, fastkv}};
}

/// Column sums beyond a tile of 512 keys and 128/G positions; 1026 has a window over the edge of 1024 scores.
inline std::vector<MethodCase> long_column_cases(int n_layer) {
  std::vector<MethodCase> cases;
  for (auto [method, n] :
       {std::pair{MethodName::h2o, 600}, {MethodName::pyramidinfer, 560}, {MethodName::snapkv, 1026}})
    cases.push_back({name(method), n, method_defaults(method, n_layer)});
  cases[1].method.delta = 0.3;
  cases.push_back(cases[0]);
  cases.back().method.h2o_mask = H2oMask::reference;
  return cases;
}

}  // namespace fastkv::test
