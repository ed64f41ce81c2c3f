// The CUDA backend as a whole: the same bits under a graph and without, for any schedule, tile and shortcut; its cache.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <numeric>

#include "backend/cuda/cuda_backend.hpp"
#include "cache/kv_cache.hpp"
#include "core/arg_max.hpp"
#include "cuda_test.hpp"
#include "fastkv/error.hpp"
#include "prefill/plan.hpp"
#include "prefill/prefill.hpp"
#include "support/cases.hpp"
#include "support/prefill_run.hpp"

namespace fastkv::test {
namespace {

using cuda::CudaBackend;
using cuda::DecodeBy;

class CudaBackendTest : public testing::Test {
 protected:
  static EngineOptions options_with(int tile_rows, Compute compute = Compute::automatic) {
    EngineOptions options;
    options.device = "cuda";
    options.compute = compute;
    options.tile_rows = tile_rows;
    options.threads = 2;
    return options;
  }
  std::unique_ptr<CudaBackend> loaded(const RandomModel& model, const EngineOptions& options = options_with(0),
                                      DecodeBy decode_by = DecodeBy::graph) {
    auto backend = std::make_unique<CudaBackend>(options, model.config, model.tensors, decode_by);
    backend->load(model.tensors, {}, control_);
    return backend;
  }
  /// The cache of a prompt of n tokens under full attention.
  KvCache prompted(const RandomModel& model, Backend& backend, std::int64_t n, const CacheFormat& format) {
    std::vector<std::int32_t> positions(static_cast<std::size_t>(n));
    std::iota(positions.begin(), positions.end(), 0);
    KvCache cache;
    const auto x = backend.embed(model.prompt(n), positions, control_);
    for (int l = 0; l < model.config.n_layer; ++l) {
      const auto state = backend.begin_layer(l, *x, {}, control_);
      const auto keep = backend.select_ends(n, n, 0, model.config.n_head_kv);
      cache.layers.push_back(backend.store(*state, *keep, format, control_));
      backend.finish_layer(l, *x, *state, nullptr, control_);
    }
    cache.next_position = n;
    return cache;
  }
  std::vector<float> fed(const RandomModel& model, Backend& backend, KvCache& cache,
                         const std::vector<std::int32_t>& tokens) {
    std::vector<float> logits(std::size_t(model.config.n_vocab));
    const SequenceStep step = cache.step(tokens);
    backend.decode_step({&step, 1}, {logits.data()}, control_);
    cache.advance(std::int64_t(tokens.size()));
    return logits;
  }

  RandomModel small_{{"small", 2, 64, 96, 4, 2, 64, 101, {DType::q4_0, DType::f16, DType::q4_1}, true, false, true}, 5};
  RunControl control_;
};

void expect_same(const BackendRun& a, const BackendRun& b) {
  EXPECT_EQ(a.logits, b.logits);
  EXPECT_EQ(a.decode_logits, b.decode_logits);
  EXPECT_EQ(a.tsp_kept, b.tsp_kept);
  EXPECT_EQ(a.selected, b.selected);
  for (std::size_t l = 0; l < a.layers.size(); ++l) {
    EXPECT_EQ(a.layers[l].kept, b.layers[l].kept) << "layer " << l;
    EXPECT_EQ(a.layers[l].keys, b.layers[l].keys) << "layer " << l;
    EXPECT_EQ(a.layers[l].values, b.layers[l].values) << "layer " << l;
    EXPECT_EQ(a.layers[l].coverage, b.layers[l].coverage) << "layer " << l;
  }
}

MethodParams some_fastkv() {
  MethodParams m = fastkv_defaults(4);
  m.tsp_layer = 1;
  m.retention = 0.3;
  m.tsp_rate = 0.5;
  return m;
}

TEST_F(CudaBackendTest, AGraphGivesWhatItsLaunchesGive) {
  std::vector<float> expected;
  std::vector<std::int32_t> expected_best;
  for (const DecodeBy by : {DecodeBy::launches, DecodeBy::graph}) {
    const auto backend = loaded(small_, options_with(0), by);
    // room for two tokens: later ones move the cache, and with it the graph
    KvCache cache = prompted(small_, *backend, 70, {CacheType::bf16, CacheType::q8_0, 2});
    std::vector<float> found;
    std::vector<std::int32_t> found_best;
    std::int32_t token = 7;
    const std::vector<std::int32_t> banned = {13, 14};
    for (int i = 0; i < 9; ++i) {
      std::vector<float> logits(std::size_t(small_.config.n_vocab));
      std::int32_t best = -1;
      const SequenceStep step = cache.step({&token, 1});
      StepOutput out{logits.data()};
      if (i % 3 != 0) out.best = &best;
      if (i % 3 == 1) out.logits = nullptr;
      if (i > 5) out.banned = banned;
      backend->decode_step({&step, 1}, out, control_);
      cache.advance(1);
      if (out.logits && out.best) {
        for (const std::int32_t id : out.banned) logits[std::size_t(id)] = -INFINITY;
        EXPECT_EQ(best, arg_max(logits));
      }
      if (out.logits) found.insert(found.end(), logits.begin(), logits.end());
      found_best.push_back(best);
      token = best >= 0 ? best : 11;
    }
    if (by == DecodeBy::launches) expected = found, expected_best = found_best;
    EXPECT_EQ(found, expected);
    EXPECT_EQ(found_best, expected_best);
  }
}

TEST_F(CudaBackendTest, SeveralTokensAndSequencesAreThoseOneByOne) {
  for (const CacheType type : {CacheType::f32, CacheType::f16, CacheType::bf16, CacheType::q8_0}) {
    const auto backend = loaded(small_);
    const CacheFormat format{type, type, 8};
    KvCache one_by_one = prompted(small_, *backend, 40, format), at_once = prompted(small_, *backend, 40, format),
            other = prompted(small_, *backend, 33, format), other_alone = prompted(small_, *backend, 33, format);
    std::vector<float> expected;
    for (const std::int32_t token : {7, 11, 13}) expected = fed(small_, *backend, one_by_one, {token});
    EXPECT_EQ(fed(small_, *backend, at_once, {7, 11, 13}), expected) << name(type);

    const std::vector<float> first = fed(small_, *backend, one_by_one, {5}),
                             second = fed(small_, *backend, other_alone, {6, 2});
    const std::vector<std::int32_t> tokens = {5}, others = {6, 2};
    const SequenceStep steps[] = {at_once.step(tokens), other.step(others)};
    std::vector<float> both(first.size() * 2), together = first;
    together.insert(together.end(), second.begin(), second.end());
    backend->decode_step(steps, {both.data()}, control_);
    EXPECT_EQ(both, together) << name(type);
  }
}

TEST_F(CudaBackendTest, TruncatedRowsAreWrittenAgain) {
  const auto backend = loaded(small_);
  KvCache cache = prompted(small_, *backend, 20, {CacheType::f16, CacheType::bf16, 1});
  fed(small_, *backend, cache, {3});
  const std::vector<float> expected = fed(small_, *backend, cache, {3});  // the same token, another position
  fed(small_, *backend, cache, {5, 6, 7});
  EXPECT_EQ(cache.layers[0]->length(1), 25);
  for (const auto& layer : cache.layers) layer->truncate(1);
  cache.next_position = 21;
  EXPECT_EQ(cache.layers[0]->length(1), 21);
  EXPECT_EQ(cache.layers[1]->bytes(), std::size_t(21 * 2 * 64 * 4));
  EXPECT_EQ(fed(small_, *backend, cache, {3}), expected);
}

TEST_F(CudaBackendTest, AnySchedule) {
  const RandomModel model({"schedules", 4, 64, 64, 4, 2, 16, 67, {DType::q4_0, DType::f32}, false, true, false}, 9);
  BackendRun expected;
  for_each_schedule([&] {
    const auto backend = loaded(model, options_with(48));
    const BackendRun found = prefill_on(*backend, model.config, model.prompt(150), some_fastkv(), std::vector{3, 5});
    if (expected.logits.empty()) expected = found;
    expect_same(found, expected);
  });
}

TEST_F(CudaBackendTest, AnyTile) {
  const RandomModel model({"tiles", 4, 64, 64, 4, 2, 16, 67, {DType::q8_0, DType::f32}, true, true, false}, 9);
  BackendRun expected;
  for (const int tile : {0, 16, 33, 128}) {
    SCOPED_TRACE(tile);
    const auto backend = loaded(model, options_with(tile));
    const BackendRun found = prefill_on(*backend, model.config, model.prompt(150), some_fastkv(), std::vector{3, 5});
    if (tile == 0) expected = found;
    expect_same(found, expected);
  }
}

// S1, S2, S4, S5: rows that go on are computed alone, and nothing changes.
TEST_F(CudaBackendTest, ShortcutsAreLossless) {
  const RandomModel model({"shortcuts", 4, 64, 64, 4, 2, 16, 67, {DType::q8_0, DType::f32}, true, true, false}, 9);
  const auto backend = loaded(model, options_with(64));
  for (const MethodName method : {MethodName::full, MethodName::fastkv, MethodName::snapkv, MethodName::gemfilter,
                                  MethodName::pyramidinfer, MethodName::h2o}) {
    SCOPED_TRACE(name(method));
    MethodParams with = method == MethodName::full     ? full_method()
                        : method == MethodName::fastkv ? some_fastkv()
                                                       : method_defaults(method, model.config.n_layer);
    with.filter_layer = 1;
    with.retention = 0.3;
    MethodParams without = with;
    with.shortcuts = true;
    without.shortcuts = false;
    const auto run = [&](const MethodParams& params) {
      return prefill_on(*backend, model.config, model.prompt(120), params, std::vector{3, 5});
    };
    expect_same(run(with), run(without));
  }
}

// Queries that scored are not computed again: with many, few or none of them kept, the same bits come out of a layer.
TEST_F(CudaBackendTest, KeptQueriesAreThoseOfTheRowsThatGoOn) {
  const RandomModel model({"queries", 2, 64, 64, 4, 2, 16, 67, {DType::q8_0, DType::f32}, true, true, false}, 9);
  constexpr std::int64_t n = 120;
  std::vector<std::int32_t> positions(n);
  std::iota(positions.begin(), positions.end(), 0);
  for (const int tile : {0, 48}) {
    const auto backend = loaded(model, options_with(tile));
    const auto finished = [&](std::int64_t scoring, bool all) {
      const auto x = backend->embed(model.prompt(n), positions, control_);
      const auto state = backend->begin_layer(0, *x, {scoring}, control_);
      const auto next = all ? nullptr : backend->select_ends(n, 40, 30, 1);
      backend->finish_layer(0, *x, *state, next.get(), control_);
      std::vector<float> logits(std::size_t(x->n() * model.config.n_vocab));
      backend->logits(*x, x->n(), logits.data(), control_);
      return logits;
    };
    for (const bool all : {true, false}) {
      const std::vector<float> expected = finished(0, all);
      for (const std::int64_t scoring : {1, 24, 30, 50, 72, 120})
        EXPECT_EQ(finished(scoring, all), expected) << scoring << " scoring rows, tile " << tile << ", all " << all;
    }
  }
}

TEST_F(CudaBackendTest, FourBitFilesAreDecodedIn4Bits) {
  const auto automatic = loaded(small_), bf16 = loaded(small_, options_with(0, Compute::bf16));
  EXPECT_EQ(automatic->info().compute, "bf16");
  EXPECT_EQ(automatic->info().decode_compute, "q4");
  EXPECT_EQ(bf16->info().decode_compute, "bf16");
  EXPECT_LT(automatic->memory(1, 0).decode_weights, bf16->memory(1, 0).decode_weights);
  const CacheFormat format{CacheType::bf16, CacheType::bf16, 2};
  KvCache a = prompted(small_, *automatic, 30, format), b = prompted(small_, *bf16, 30, format);
  EXPECT_NE(fed(small_, *automatic, a, {7}), fed(small_, *bf16, b, {7}));
}

TEST_F(CudaBackendTest, WorkAndTimeAddUp) {
  const RandomModel model({"work", 3, 64, 128, 4, 2, 32, 131, {DType::q4_0, DType::f32}, true, false, true}, 3);
  CudaBackend backend(options_with(0), model.config, model.tensors);
  std::vector<std::string> packed;
  RunControl load;
  backend.load(
      model.tensors, [&](const TensorView& t) { packed.push_back(t.name); }, load);
  double bytes = double(model.tensors.token_embd.bytes() + model.tensors.output_norm.bytes() +
                        model.tensors.output.bytes() + model.tensors.output_bias.bytes());
  std::size_t tensors = 4;
  for (const LayerTensors& l : model.tensors.layers)
    for (const TensorView* t : {&l.attn_norm, &l.q, &l.k, &l.v, &l.o, &l.q_bias, &l.k_bias, &l.v_bias, &l.o_bias,
                                &l.ffn_norm, &l.gate, &l.up, &l.down, &l.gate_bias, &l.up_bias, &l.down_bias}) {
      bytes += double(t->bytes());
      ++tensors;
    }
  EXPECT_EQ(load.work.load(), bytes);
  std::sort(packed.begin(), packed.end());
  EXPECT_EQ(std::unique(packed.begin(), packed.end()), packed.end()) << "a tensor was reported twice";
  EXPECT_EQ(packed.size(), tensors);

  RunPlan plan;
  plan.method = some_fastkv();
  plan.n_prompt = 200;
  plan_layers(plan, model.config);
  RunControl control;
  const Prefill filled = prefill(
      backend, model.config, plan, model.prompt(200), {{CacheType::bf16, CacheType::bf16, 1}}, [](int) {}, control);
  EXPECT_NEAR(control.work.load() / prefill_flops(plan, model.config), 1, 0.02);
  StageTimes times = filled.end_times;
  for (const StageTimes& layer : filled.layer_times) times += layer;
  for (const Stage stage : {Stage::gemm, Stage::attention, Stage::scores, Stage::selection, Stage::store, Stage::rest})
    EXPECT_GT(times[stage], 0) << name(stage);
}

TEST_F(CudaBackendTest, Stops) {
  const auto backend = loaded(small_);
  const std::atomic<bool> stop{true};
  RunControl control;
  control.stop = &stop;
  try {
    backend->embed(small_.prompt(3), {0, 1, 2}, control);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::cancelled);
  }
}

TEST_F(CudaBackendTest, RefusesInOneLine) {
  const auto refusal = [&](const EngineOptions& options, const RandomShape& shape) -> std::string {
    const RandomModel model(shape, 1);
    try {
      CudaBackend(options, model.config, model.tensors);
    } catch (const Error& error) {
      EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
      return error.what();
    }
    return "";
  };
  const RandomShape good{"good", 1, 32, 32, 2, 1, 16, 67, {DType::f32}, false, true, false};
  RandomShape wide = good, odd = good;
  wide.head_dim = 136;
  odd.head_dim = 20;
  EXPECT_EQ(refusal(options_with(0), good), "");
  EXPECT_EQ(refusal(options_with(0), wide), "head size 136: expected a multiple of 8 up to 128");
  EXPECT_EQ(refusal(options_with(0), odd), "head size 20: expected a multiple of 8 up to 128");
  EXPECT_EQ(refusal(options_with(0, Compute::int8), good), "--compute int8: expected auto or bf16 with --device cuda");
  EngineOptions options = options_with(0);
  options.gemm = Gemm::openblas;
  EXPECT_EQ(refusal(options, good), "--gemm has no effect with --device cuda");
  options = options_with(0);
  options.isa = "avx2";
  EXPECT_EQ(refusal(options, good), "--isa has no effect with --device cuda");
  const auto backend = loaded(small_);
  EXPECT_EQ(backend->resolve_cache_type(CacheType::automatic, "-ctk"), CacheType::bf16);
  EXPECT_EQ(backend->info().attention, "f16 tensor cores");
  EXPECT_EQ(backend->info().isa.rfind("sm_", 0), 0u);
}

}  // namespace
}  // namespace fastkv::test
