// The queries that begin_layer computes for the scores are those that finish_layer attends with: whatever scored, the
// rows that go on are bitwise the same.
#include <gtest/gtest.h>

#include "backend/cpu/handles.hpp"
#include "support/random_model.hpp"

namespace fastkv::test {
namespace {

constexpr std::int64_t kRows = 70;

class ScoringQueries : public testing::TestWithParam<Compute> {
 protected:
  /// A backend whose layers take `tile_rows` at a time; 0: all.
  std::unique_ptr<Backend> backend(int tile_rows) const {
    EngineOptions options;
    options.threads = options.threads_batch = 2;
    options.compute = GetParam();
    options.gemm = Gemm::native;
    options.tile_rows = tile_rows;
    auto made = make_backend(options, model_.config, model_.tensors);
    RunControl control;
    made->load(model_.tensors, {}, control);
    return made;
  }
  std::unique_ptr<Hidden> embedded(Backend& backend) const {
    std::vector<std::int32_t> positions(kRows);
    for (std::int64_t i = 0; i < kRows; ++i) positions[std::size_t(i)] = std::int32_t(i);
    RunControl control;
    return backend.embed(model_.prompt(kRows), positions, control);
  }
  /// Logits of the rows `next` (none: all) after the first layer, of which the last `scoring` rows score.
  std::vector<float> after_layer(Backend& backend, std::int64_t scoring, const std::vector<std::int32_t>& next) const {
    RunControl control;
    const auto x = embedded(backend);
    const auto state = backend.begin_layer(0, *x, {scoring}, control);
    cpu::CpuSelection selection;
    selection.heads = 1;
    selection.rows.push_back(next);
    backend.finish_layer(0, *x, *state, next.empty() ? nullptr : &selection, control);
    std::vector<float> logits(std::size_t(x->n() * model_.config.n_vocab));
    backend.logits(*x, x->n(), logits.data(), control);
    return logits;
  }

  const RandomModel model_{{"queries", 1, 96, 160, 6, 3, 32, 67, {DType::q8_0, DType::q4_0}, true, false, true}, 3};
};

TEST_P(ScoringQueries, ServeTheRowsThatGoOn) {
  // Up to 4 rows go on by themselves, more in a tile; some of them, all or none have scored.
  const std::vector<std::vector<std::int32_t>> choices = {
      {}, {69}, {3, 69}, {0, 5, 33, 34, 35, 61, 62, 68, 69}, {62, 63, 64, 65, 66, 69}, {1, 2, 3}};
  for (const int tile_rows : {0, 32}) {
    const auto made = backend(tile_rows);
    for (const auto& next : choices) {
      const std::vector<float> expected = after_layer(*made, 0, next);
      for (const std::int64_t scoring : {8, 35, 69})
        EXPECT_EQ(after_layer(*made, scoring, next), expected)
            << scoring << " scoring, " << next.size() << " go on, tiles of " << tile_rows;
    }
  }
}

TEST_P(ScoringQueries, ScoresDoNotDependOnHowManyAreKept) {
  const auto made = backend(0);
  RunControl control;
  const auto x = embedded(*made);
  const auto scores = [&](std::int64_t kept) {
    const auto state = made->begin_layer(0, *x, {kept}, control);
    return made->read(*made->column_scores(0, *state, {8, 8}, control));
  };
  const std::vector<float> expected = scores(8);
  for (const std::int64_t kept : {9, 35, 70}) EXPECT_EQ(scores(kept), expected) << kept << " kept";
}

INSTANTIATE_TEST_SUITE_P(Compute, ScoringQueries, testing::Values(Compute::f32, Compute::bf16, Compute::int8),
                         [](const auto& info) { return std::string(name(info.param)); });

}  // namespace
}  // namespace fastkv::test
