// What the cache holds: rows rotated by their original position, rounded once, appended and taken back exactly.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "cache/kv_cache.hpp"
#include "core/half.hpp"
#include "core/quant_blocks.hpp"
#include "fastkv/error.hpp"
#include "support/backend_run.hpp"
#include "support/random_model.hpp"
#include "support/spread.hpp"

namespace fastkv::test {
namespace {

class LayerCacheTest : public testing::Test {
 protected:
  LayerCacheTest() : model_({"cache", 3, 64, 96, 6, 2, 64, 101, {DType::f32}, true, false, true}, 23) {
    EngineOptions options;
    options.threads = options.threads_batch = 2;
    options.compute = Compute::f32;
    backend_ = make_backend(options, model_.config, model_.tensors);
    backend_->load(
        model_.tensors, [](const TensorView&) {}, control_);
    method_ = fastkv_defaults(model_.config.n_layer);
    method_.tsp_layer = 1;
    method_.retention = 0.3;
    method_.tsp_rate = 0.5;
  }

  /// Caches of a prompt of `n` tokens under full attention, with room for `reserve` more.
  KvCache cache_of(std::int64_t n, CacheType type, std::int64_t reserve) {
    KvCache out;
    std::vector<std::int32_t> positions;
    for (std::int64_t i = 0; i < n; ++i) positions.push_back(std::int32_t(i));
    const auto x = backend_->embed(model_.prompt(n), positions, control_);
    for (int l = 0; l < model_.config.n_layer; ++l) {
      const auto state = backend_->begin_layer(l, *x, {}, control_);
      const auto keep = backend_->select_ends(n, n, 0, model_.config.n_head_kv);
      out.layers.push_back(backend_->store(*state, *keep, {type, type, reserve}, control_));
      backend_->finish_layer(l, *x, *state, nullptr, control_);
    }
    out.next_position = n;
    return out;
  }
  std::vector<float> feed(const KvCache& cache, const std::vector<std::int32_t>& tokens, std::int64_t position) {
    std::vector<float> logits(std::size_t(model_.config.n_vocab));
    const SequenceStep step{cache.layers, tokens, position};
    backend_->decode_step({&step, 1}, {logits.data()}, control_);
    return logits;
  }

  RandomModel model_;
  std::unique_ptr<Backend> backend_;
  RunControl control_;
  MethodParams method_;
};

// Layer 0 depends on a token alone, so that its keys can be made from nothing but the embedding and the position.
TEST_F(LayerCacheTest, KeysKeepTheRotationOfTheirOriginalPosition) {
  const std::vector<std::int32_t> prompt = model_.prompt(90);
  const BackendRun run = run_on(*backend_, model_.config, prompt, method_, {});
  const ModelConfig& c = model_.config;
  const std::size_t width = std::size_t(c.n_embd), d = std::size_t(c.head_dim);
  auto floats = [](const TensorView& view, std::int64_t row) {
    std::vector<float> out(std::size_t(view.cols));
    dequantize_row(view.type, view.data + std::size_t(row) * row_bytes(view.type, out.size()), out.data(), out.size());
    return out;
  };
  const LayerTensors& t = model_.tensors.layers[0];
  const std::vector<float> norm = floats(t.attn_norm, 0), bias = floats(t.k_bias, 0);
  for (int k = 0; k < c.n_head_kv; ++k) {
    const std::vector<std::int32_t>& kept = run.layers[0].kept[std::size_t(k)];
    ASSERT_EQ(kept.size(), 27u);
    ASSERT_NE(kept[0], 0) << "choose another seed: the test wants gaps";
    for (std::size_t i = 0; i < kept.size(); ++i) {
      const std::vector<float> x = floats(model_.tensors.token_embd, prompt[std::size_t(kept[i])]);
      double square = 0;
      for (float v : x) square += double(v) * v;
      const double scale = 1 / std::sqrt(square / double(width) + double(c.rms_eps));
      std::vector<double> raw(d), expected(d);
      for (std::size_t e = 0; e < d; ++e) {
        const std::int64_t row = std::int64_t(std::size_t(k) * d + e);
        const std::vector<float> w = floats(t.k, row);
        raw[e] = bias[std::size_t(row)];
        for (std::size_t j = 0; j < width; ++j) raw[e] += double(w[j]) * (x[j] * scale * norm[j]);
      }
      for (std::size_t e = 0; e < d; e += 2) {
        const double angle = kept[i] * c.rope_inv_freq[e / 2];
        expected[e] = raw[e] * std::cos(angle) - raw[e + 1] * std::sin(angle);
        expected[e + 1] = raw[e] * std::sin(angle) + raw[e + 1] * std::cos(angle);
      }
      // 64 products of size one: 64 · 2^-24 in the worst case, and the rotation's own rounding.
      EXPECT_LE(max_difference(run.layers[0].keys[std::size_t(k)][i], expected), 2e-5) << "position " << kept[i];
    }
  }
}

TEST_F(LayerCacheTest, RowsAreRoundedOnceFromFloat32) {
  const KvCache exact = cache_of(21, CacheType::f32, 1);
  const std::size_t d = std::size_t(model_.config.head_dim);
  for (CacheType type : {CacheType::f16, CacheType::bf16, CacheType::q8_0}) {
    const KvCache rounded = cache_of(21, type, 1);
    for (std::size_t l = 0; l < exact.layers.size(); ++l) {
      for (std::int64_t row = 0; row < 21; ++row) {
        std::vector<float> key(d), value(d), key_rounded(d), value_rounded(d);
        exact.layers[l]->read_row(1, row, key.data(), value.data());
        rounded.layers[l]->read_row(1, row, key_rounded.data(), value_rounded.data());
        auto expect_rounded = [&](const std::vector<float>& from, const std::vector<float>& to) {
          for (std::size_t e = 0; e < d; ++e) {
            const float once =
                type == CacheType::f16 ? f16_to_f32(f32_to_f16(from[e])) : bf16_to_f32(f32_to_bf16(from[e]));
            EXPECT_TRUE(type == CacheType::q8_0 || to[e] == once) << to[e] << ", expected " << once;
          }
          for (std::size_t b = 0; type == CacheType::q8_0 && b < d; b += 32) {
            float most = 0;
            for (std::size_t e = b; e < b + 32; ++e) most = std::max(most, std::fabs(from[e]));
            // Half a step of max/127, and the scale itself rounded to 11 bits: 127 · 2^-11 of a step.
            for (std::size_t e = b; e < b + 32; ++e) EXPECT_NEAR(to[e], from[e], most / 127 * (0.5 + 127.0 / 2048));
          }
        };
        expect_rounded(key, key_rounded);
        expect_rounded(value, value_rounded);
      }
    }
    const CacheFormat format{type, type, 1};
    EXPECT_EQ(rounded.bytes(), backend_->cache_row_bytes(format) * 21 * 2 * 3);
  }
}

TEST_F(LayerCacheTest, TruncateTakesBackWhatDecodeAppended) {
  for (CacheType type : {CacheType::f32, CacheType::f16, CacheType::q8_0}) {
    const KvCache straight = cache_of(33, type, 8), detour = cache_of(33, type, 8);
    const std::vector<float> first = feed(straight, {7}, 33), expected = feed(straight, {8}, 34);
    EXPECT_EQ(feed(detour, {7}, 33), first);
    feed(detour, {50}, 34);
    feed(detour, {51}, 35);
    for (const auto& layer : detour.layers) {
      EXPECT_EQ(layer->length(0), 36);
      layer->truncate(1);
      EXPECT_EQ(layer->length(0), 34);
      EXPECT_EQ(layer->length(1), 34);
    }
    EXPECT_EQ(feed(detour, {8}, 34), expected);
    EXPECT_EQ(detour.layers[0]->appended(), 2);
    EXPECT_THROW(detour.layers[0]->truncate(3), Error);
    EXPECT_THROW(detour.layers[0]->truncate(-1), Error);
  }
}

TEST_F(LayerCacheTest, GrowingBeyondTheReserveKeepsEveryRow) {
  for (CacheType type : {CacheType::f32, CacheType::f16, CacheType::bf16, CacheType::q8_0}) {
    const KvCache grown = cache_of(21, type, 1), roomy = cache_of(21, type, 40);
    for (std::int32_t t = 0; t < 20; ++t) ASSERT_EQ(feed(grown, {t}, 21 + t), feed(roomy, {t}, 21 + t)) << name(type);
  }
}

TEST_F(LayerCacheTest, SeveralTokensInOneStepEqualOneByOne) {
  const KvCache one = cache_of(40, CacheType::f32, 8), many = cache_of(40, CacheType::f32, 8);
  const std::vector<std::int32_t> tokens = {5, 9, 13, 60};
  std::vector<float> expected;
  for (std::size_t t = 0; t < tokens.size(); ++t) expected = feed(one, {tokens[t]}, 40 + std::int64_t(t));
  const std::vector<float> found = feed(many, tokens, 40);
  // Rows go through the same arithmetic in other company; sums of attention may be cut elsewhere.
  EXPECT_LE(max_difference(found, expected), 1e-4);
  EXPECT_EQ(many.layers[0]->length(0), 44);
}

TEST_F(LayerCacheTest, SequencesInOneStepDoNotMix) {
  const KvCache a = cache_of(17, CacheType::f16, 4), b = cache_of(50, CacheType::f16, 4);
  const KvCache a2 = cache_of(17, CacheType::f16, 4), b2 = cache_of(50, CacheType::f16, 4);
  const std::vector<std::int32_t> ta = {3}, tb = {4};
  const std::vector<float> la = feed(a, ta, 17), lb = feed(b, tb, 50);
  const std::size_t v = std::size_t(model_.config.n_vocab);
  std::vector<float> both(2 * v);
  const SequenceStep steps[] = {{a2.layers, ta, 17}, {b2.layers, tb, 50}};
  backend_->decode_step(steps, {both.data()}, control_);
  EXPECT_LE(max_difference(std::vector<float>(both.begin(), both.begin() + std::ptrdiff_t(v)), la), 1e-4);
  EXPECT_LE(max_difference(std::vector<float>(both.begin() + std::ptrdiff_t(v), both.end()), lb), 1e-4);
}

}  // namespace
}  // namespace fastkv::test
