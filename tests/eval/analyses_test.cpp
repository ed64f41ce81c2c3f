// fastkv-eval ppl, kld, overlap, hidden, choose-tsp, ablation, latency on a small model: figures that are known, and
// what is refused.
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "support/fixtures.hpp"
#include "support/process.hpp"

namespace fastkv::test {
namespace {

using Json = nlohmann::json;

class Analyses : public ::testing::Test {
 protected:
  void SetUp() override {
    FASTKV_REQUIRE_FILE(model_);
    FASTKV_REQUIRE_FILE(novel_);
  }
  Outcome run(const std::string& subcommand, std::vector<std::string> more) const {
    more.insert(more.begin(), {subcommand, "-m", model_, "--compute", "f32"});
    return run_program("fastkv-eval", more);
  }
  Json result(const std::string& subcommand, std::vector<std::string> more) const {
    more.insert(more.end(), {"-o", scratch_ / "out.json", "--overwrite"});
    const Outcome outcome = run(subcommand, more);
    EXPECT_EQ(outcome.status, 0) << outcome.err;
    std::ifstream file(scratch_ / "out.json");
    return outcome.status == 0 ? Json::parse(file) : Json();
  }
  std::string refusal(const std::string& subcommand, const std::vector<std::string>& more, int status = 2) const {
    const Outcome outcome = run(subcommand, more);
    EXPECT_EQ(outcome.status, status) << outcome.err;
    EXPECT_EQ(outcome.out, "");
    const std::string err = outcome.err.substr(0, outcome.err.size() - 1);
    return err.substr(err.rfind('\n') + 1);
  }

  const std::string model_ = (fixtures() / "models" / "stories260K-f32.gguf").string();
  const std::string novel_ = (fixtures() / "text" / "frankenstein.txt").string();
  const Scratch scratch_;
};

// Perplexity from the logits that fastkv-run saves, window by window.
TEST_F(Analyses, PerplexityOfSavedLogits) {
  constexpr std::size_t kWindow = 64, kVocabulary = 512;
  const Json found = result("ppl", {"-f", novel_, "-c", "64", "--stride", "48", "--limit", "2", "--method", "full"});
  const Outcome tokens = run_program("fastkv-tokenize", {model_, "-f", novel_});
  auto ids = Json::parse(tokens.out).get<std::vector<int>>();
  double sum = 0;
  std::size_t count = 0;
  for (std::size_t w = 0; w < 2; ++w) {
    std::vector<int> window(ids.begin() + std::ptrdiff_t(48 * w), ids.begin() + std::ptrdiff_t(48 * w + kWindow));
    window[0] = 1;  // BOS
    const std::string file = scratch_.write("ids.json", Json(window).dump()), logits = scratch_ / "logits.npy";
    const Outcome saved = run_program("fastkv-run", {"-m", model_, "--tokens", file, "-n", "0", "--method", "full",
                                                     "-c", "64", "--compute", "f32", "--save-logits", logits});
    ASSERT_EQ(saved.status, 0) << saved.err;
    std::ifstream in(logits, std::ios::binary);
    std::vector<float> rows(kWindow * kVocabulary);
    in.seekg(128);
    in.read(reinterpret_cast<char*>(rows.data()), std::streamsize(4 * rows.size()));
    ASSERT_TRUE(in);
    for (std::size_t t = kWindow / 2 + 1; t < kWindow; ++t, ++count) {
      const float* row = rows.data() + (t - 1) * kVocabulary;
      double total = 0;
      for (std::size_t v = 0; v < kVocabulary; ++v) total += std::exp(double(row[v]));
      sum += std::log(total) - double(row[window[t]]);
    }
  }
  ASSERT_EQ(found["scores"][0]["n"], count);
  EXPECT_NEAR(found["scores"][0]["nll"]["mean"].get<double>(), sum / double(count), 1e-6);
  EXPECT_NEAR(found["scores"][0]["ppl"]["mean"].get<double>(), std::exp(sum / double(count)),
              1e-4 * std::exp(sum / double(count)));
}

TEST_F(Analyses, PerplexityClosesAsLlamaPerplexity) {
  const Outcome one = run("ppl", {"-f", novel_, "-c", "64", "--limit", "1", "--method", "snapkv"});
  EXPECT_EQ(one.out.substr(0, 22), "Final estimate: PPL = ") << one.out;
  const Outcome two = run("ppl", {"-f", novel_, "-c", "64", "--limit", "1"});
  EXPECT_EQ(two.out.substr(0, two.out.find(' ')), "method");
}

// A budget above the window is full attention, up to the rounding of prefill and decode; a small one is not; the same
// run as base has no divergence at all.
TEST_F(Analyses, DivergenceOverWindows) {
  const std::vector<std::string> text = {"-f", novel_, "-c", "96", "--limit", "3"};
  const auto with = [&](std::vector<std::string> more) {
    more.insert(more.begin(), text.begin(), text.end());
    return result("kld", more);
  };
  const Json all = with({"--method", "full,snapkv", "--kv-budget", "200"});
  EXPECT_EQ(all["scores"][0]["kl"]["mean"], 0.0);
  EXPECT_EQ(all["scores"][0]["same_best"]["mean"], 100.0);
  EXPECT_LT(all["scores"][1]["kl_max"].get<double>(), 1e-6);
  const Json few = with({"--method", "snapkv", "--kv-budget", "9"});
  EXPECT_GT(few["scores"][0]["kl"]["mean"].get<double>(), 0.01);
  EXPECT_GE(few["scores"][0]["kl_99"].get<double>(), few["scores"][0]["kl_median"].get<double>());
  EXPECT_EQ(few["scores"][0]["n"], 3 * 47);
  const Json arithmetic = with({"--method", "full", "--base-compute", "bf16"});
  EXPECT_EQ(arithmetic["settings"]["base_compute"], "bf16");
  EXPECT_GT(arithmetic["scores"][0]["kl"]["mean"].get<double>(), 0.0);
  EXPECT_LT(arithmetic["scores"][0]["kl"]["mean"].get<double>(), 0.01);
}

TEST_F(Analyses, OverlapOfLayers) {
  const std::vector<std::string> text = {"-f", novel_, "--length", "80", "--limit", "3", "--window", "4"};
  const auto with = [&](std::vector<std::string> more) {
    more.insert(more.begin(), text.begin(), text.end());
    return result("overlap", more);
  };
  const Json some = with({"--top-k", "20"});
  ASSERT_EQ(some["scores"].size(), 5u);
  ASSERT_EQ(some["examples"].size(), 3u);
  for (std::size_t a = 0; a < 5; ++a) {
    const Json& row = some["scores"][a]["overlap"];
    EXPECT_EQ(row[a], 1.0);
    for (std::size_t b = 0; b < 5; ++b) {
      EXPECT_NEAR(row[b].get<double>(), some["scores"][b]["overlap"][a].get<double>(), 1e-12);
      EXPECT_GE(row[b].get<double>(), 0.0);
    }
    const double mass = some["scores"][a]["mass"]["mean"];
    EXPECT_GT(mass, 20.0 / 80) << "the best tokens hold more than their share";
    EXPECT_LT(mass, 1);
  }
  // every scored token is on top: sets are equal, and the rest of the attention is on the window
  const Json all = with({"--top-rate", "0.95"});
  EXPECT_EQ(all["settings"]["k"], 76);
  EXPECT_EQ(all["scores"][1]["overlap"][3], 1.0);
  EXPECT_GT(all["scores"][1]["mass"]["mean"].get<double>(), some["scores"][1]["mass"]["mean"].get<double>());
}

TEST_F(Analyses, HiddenStatesAndTheTspLayer) {
  const std::vector<std::string> text = {"-f", novel_, "--length", "80", "--limit", "2"};
  const auto with = [&](const char* subcommand, std::vector<std::string> more) {
    more.insert(more.begin(), text.begin(), text.end());
    return result(subcommand, more);
  };
  const Json hidden = with("hidden", {"--layers", "1-3+2"});
  ASSERT_EQ(hidden["scores"].size(), 4u);
  for (const Json& curve : hidden["scores"]) {
    const int layer = curve["layer"];
    for (int l = 0; l < 5; ++l) {
      const double distance = curve["distance"][std::size_t(l)];
      // fastkv's layers up to TSP are full's; gemfilter's prompt is another from the first layer on
      const bool same = curve["method"] == "fastkv" && l <= layer;
      EXPECT_EQ(distance == 0, same) << curve["method"] << " " << layer << " " << l;
    }
    EXPECT_NEAR(curve["final"]["mean"].get<double>(), curve["distance"][4].get<double>(), 1e-12);
  }
  const Json whole = with("hidden", {"--layers", "2", "--method", "fastkv", "--tsp-rate", "1"});
  EXPECT_EQ(whole["scores"][0]["final"]["mean"], 0.0) << "every token goes on";

  const Json choice = with("choose-tsp", {"--max-layer", "3"});
  ASSERT_EQ(choice["scores"].size(), 4u);
  double best = INFINITY;
  for (const Json& score : choice["scores"]) best = std::min(best, score["final"]["mean"].get<double>());
  int chosen = 0;
  for (const Json& score : choice["scores"]) {
    EXPECT_EQ(score["chosen"].get<bool>(), score["final"]["mean"] == best);
    if (score["chosen"]) chosen = score["layer"];
  }
  const Outcome said = run("choose-tsp", {"-f", novel_, "--length", "80", "--limit", "2", "--max-layer", "3"});
  EXPECT_NE(said.out.find("\n--tsp-layer " + std::to_string(chosen) + "\n"), std::string::npos) << said.out;
  const Json first = with("choose-tsp", {"--max-layer", "3", "--within", "1000"});
  EXPECT_TRUE(first["scores"][0]["chosen"]);
}

TEST_F(Analyses, AblationGrid) {
  const Json found = result("ablation", {"-f", novel_, "--length", "80", "--continuation", "8", "--limit", "2",
                                         "--tsp-layers", "1,3", "--tsp-rates", "0.2,1", "--retentions", "0.2,1"});
  ASSERT_EQ(found["scores"].size(), 9u) << "full and eight points";
  ASSERT_EQ(found["examples"].size(), 18u);
  for (const Json& score : found["scores"]) {
    if (score["method"] == "full") continue;
    const bool whole = score["tsp_rate"] == 1 && score["retention"] == 1;
    EXPECT_EQ(score["kl_to_full"]["mean"] == 0.0, whole) << score["tsp_layer"];
  }
  const Json rows = result("ablation", {"--rows",
                                        scratch_.write("rows.jsonl",
                                                       "{\"prompt\": \"Once upon a time there was a very small dog who "
                                                       "had a ball and a friend\", \"continuation\": \" and\"}\n"),
                                        "--tsp-layers", "2", "--tsp-rates", "0.5", "--retentions", "0.5"});
  EXPECT_EQ(rows["scores"][1]["n"], 1);
}

TEST_F(Analyses, LatencyByStage) {
  const Json found = result("latency", {"-p", "40,80", "-n", "4", "-r", "2"});
  ASSERT_EQ(found["scores"].size(), 4u);
  ASSERT_EQ(found["examples"].size(), 8u);
  for (const Json& score : found["scores"]) {
    double prefill = 0;
    for (const auto& [stage, ms] : score["prefill_stages_ms"].items()) prefill += ms.get<double>();
    EXPECT_GT(prefill, 0);
    EXPECT_LE(prefill, 1.05 * score["prefill_ms"]["mean"].get<double>()) << "stages are parts of the whole";
    EXPECT_GT(score["decode_ms_per_token"]["mean"], 0.0);
  }
  EXPECT_LT(found["scores"][1]["cache_bytes"].get<double>(), found["scores"][0]["cache_bytes"].get<double>());
}

TEST_F(Analyses, WhatIsRefused) {
  EXPECT_EQ(refusal("ppl", {}), "fastkv-eval: no text: -f FILE");
  EXPECT_EQ(refusal("ppl", {"-f", "none.txt"}, 1), "fastkv-eval: cannot open none.txt: No such file or directory");
  EXPECT_EQ(
      refusal("ppl", {"-f", scratch_.write("short.txt", "Once")}, 1),
      "fastkv-eval: " + (scratch_ / "short.txt") + ": expected at least one window of 512 tokens, found 1 tokens");
  EXPECT_EQ(refusal("ppl", {"-f", novel_, "-c", "2"}), "fastkv-eval: --ctx-size 2: a window has 4 tokens or more");
  EXPECT_EQ(refusal("ppl", {"-f", novel_, "--resume"}), "fastkv-eval: --resume has no effect without -o FILE");
  EXPECT_EQ(refusal("ppl", {"-f", scratch_.write("latin.txt", std::string(4096, '\xE4'))}, 1),
            "fastkv-eval: " + (scratch_ / "latin.txt") + ": text is not valid UTF-8 at byte 0");
  EXPECT_EQ(refusal("overlap", {"-f", novel_, "--length", "100"}),
            "fastkv-eval: --top-k: 512 tokens are more than the 92 that are scored");
  EXPECT_EQ(refusal("overlap", {"-f", novel_, "--window", "1024"}),
            "fastkv-eval: --window 1024 leaves none of the 1024 tokens of --length to score");
  EXPECT_EQ(refusal("hidden", {"-f", novel_, "--method", "snapkv"}),
            "fastkv-eval: --method snapkv: expected fastkv or gemfilter, which choose a layer");
  EXPECT_EQ(refusal("hidden", {"-f", novel_, "--layers", "7"}),
            "fastkv-eval: --layers 7: the model has 5 layers (0..4)");
  EXPECT_EQ(refusal("hidden", {"-f", novel_, "--tsp-layer", "2"}),
            "fastkv-eval: --tsp-layer: expected --layers, which is a list");
  EXPECT_EQ(refusal("choose-tsp", {"-f", novel_, "--max-layer", "4"}),
            "fastkv-eval: --max-layer 4: the last layer but one is 3");
  EXPECT_EQ(refusal("ablation", {}), "fastkv-eval: expected -f TEXT or --rows FILE");
  EXPECT_EQ(refusal("ablation", {"-f", novel_, "--tsp-rates", "0.2,2"}),
            "fastkv-eval: --tsp-rates 0.2,2: must be in (0, 1]");
  EXPECT_EQ(refusal("latency", {"-p", "0"}), "fastkv-eval: --lengths 0: must be 1 or more");
  EXPECT_EQ(refusal("latency", {"-p", "5000"}, 1),
            "fastkv-eval: 5000 tokens: prompt is too long (5000 tokens, context 128): the model is trained for no "
            "more; -c N goes beyond it");
}

}  // namespace
}  // namespace fastkv::test
