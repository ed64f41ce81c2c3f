// Scores of a layer's keys and the rows chosen by them: the host knows counts, the device the rows.
#include <algorithm>
#include <numeric>

#include "backend/cuda/cuda_backend.hpp"
#include "backend/cuda/kernels/scores.hpp"
#include "backend/cuda/kernels/selection.hpp"
#include "core/check.hpp"

namespace fastkv::cuda {
namespace {

const CudaScores& scores_of(const Scores& scores) { return static_cast<const CudaScores&>(scores); }
const CudaSelection& selection_of(const Selection& selection) { return static_cast<const CudaSelection&>(selection); }

}  // namespace

std::unique_ptr<CudaScores> CudaBackend::empty_scores(int heads, std::int64_t n) const {
  auto scores = std::make_unique<CudaScores>();
  scores->heads = heads;
  scores->n = n;
  scores->s = DeviceArray<float>(stream_, std::size_t(heads) * std::size_t(n), "scores");
  return scores;
}

std::unique_ptr<CudaSelection> CudaBackend::empty_selection(std::vector<std::int32_t> counts, std::int64_t last) const {
  auto selection = std::make_unique<CudaSelection>();
  selection->heads = int(counts.size());
  std::int64_t rows = 0;
  for (const std::int32_t count : counts) {
    selection->offsets.push_back(rows);
    rows += count;
  }
  selection->counts = std::move(counts);
  selection->last = last;
  selection->rows = DeviceArray<std::int32_t>(stream_, std::size_t(rows), "chosen rows");
  selection->device_offsets = to_device<std::int64_t>(stream_, selection->offsets, "offsets of chosen rows");
  selection->device_counts = to_device<std::int32_t>(stream_, selection->counts, "numbers of chosen rows");
  return selection;
}

std::unique_ptr<Scores> CudaBackend::column_scores(int, const LayerState& layer_state, const ColumnScores& wanted,
                                                   RunControl& control) {
  const auto& state = static_cast<const CudaLayerState&>(layer_state);
  check(wanted.rows >= 1 && wanted.rows <= state.score_rows && wanted.drop <= state.n, ErrorCode::internal,
        "column_scores: ", wanted.rows, " rows asked, ", state.score_rows, " kept");
  auto scores = empty_scores(shape_.heads, state.n - wanted.drop);
  timer_.whole(Stage::scores, [&] {
    const DeviceBuffer work(stream_, column_scores_bytes(shape_, wanted.rows, state.n), "column scores");
    cuda::column_scores(stream_, shape_, state.score_q.data(), state.score_rows, state.k.data(), state.n, wanted,
                        work.data(), scores->s.data());
  });
  pace_.step(control);
  return scores;
}

std::unique_ptr<Scores> CudaBackend::last_row_logits(int, const LayerState& layer_state, RunControl& control) {
  const auto& state = static_cast<const CudaLayerState&>(layer_state);
  check(state.score_rows >= 1, ErrorCode::internal, "last_row_logits: no query row kept");
  auto scores = empty_scores(shape_.heads, state.n);
  timer_.whole(Stage::scores, [&] {
    cuda::last_row_logits(stream_, shape_, state.score_q.data() + (state.score_rows - 1) * config_.q_dim(),
                          state.k.data(), state.n, scores->s.data());
  });
  pace_.step(control);
  return scores;
}

std::unique_ptr<Scores> CudaBackend::pool(const Scores& scores, Pooling pooling, const PoolWidth& width) {
  auto pooled = empty_scores(scores.heads, scores.n);
  timer_.whole(Stage::scores, [&] {
    cuda::pool(stream_, scores_of(scores).s.data(), scores.heads, scores.n, pooling, width, pooled->s.data());
  });
  return pooled;
}

std::unique_ptr<Scores> CudaBackend::reduce_heads(const Scores& scores, int groups, GroupReduce reduce) {
  auto reduced = empty_scores(groups, scores.n);
  timer_.whole(Stage::scores, [&] {
    cuda::reduce_heads(stream_, scores_of(scores).s.data(), scores.heads, scores.n, groups, reduce, reduced->s.data());
  });
  return reduced;
}

std::unique_ptr<Selection> CudaBackend::top_k(const Scores& scores, std::int64_t n, const std::vector<std::int64_t>& k,
                                              std::int64_t first, std::int64_t last) {
  check(k.size() == 1 || k.size() == std::size_t(scores.heads), ErrorCode::internal, "top_k: ", k.size(),
        " numbers for ", scores.heads, " heads");
  std::vector<std::int32_t> counts;
  for (int h = 0; h < scores.heads; ++h) {
    const std::int64_t one = k[k.size() == 1 ? 0 : std::size_t(h)];
    check(one <= n && one >= first + last && n - last <= scores.n && first <= n - last, ErrorCode::internal,
          "top_k: ", one, " of ", n, " rows, first ", first, ", last ", last, ", ", scores.n, " scored");
    counts.push_back(std::int32_t(one));
  }
  auto selection = empty_selection(std::move(counts), last);
  timer_.whole(Stage::selection, [&] {
    cuda::top_k(stream_, scores_of(scores).s.data(), scores.heads, scores.n, n, selection->device_counts.data(),
                selection->device_offsets.data(), first, last, selection->rows.data());
  });
  return selection;
}

std::unique_ptr<Selection> CudaBackend::select_ends(std::int64_t n, std::int64_t first, std::int64_t last, int heads) {
  auto selection = empty_selection(std::vector<std::int32_t>(std::size_t(heads), std::int32_t(first + last)), last);
  timer_.whole(Stage::selection, [&] { cuda::select_ends(stream_, n, first, last, heads, selection->rows.data()); });
  return selection;
}

std::unique_ptr<Selection> CudaBackend::repeat(const Selection& one, int heads) {
  const CudaSelection& from = selection_of(one);
  auto selection = empty_selection(std::vector<std::int32_t>(std::size_t(heads), from.counts[0]), from.last);
  timer_.whole(Stage::selection, [&] {
    for (int h = 0; h < heads; ++h)
      check_cuda(cudaMemcpyAsync(selection->rows.data() + selection->offsets[std::size_t(h)], from.rows.data(),
                                 std::size_t(from.counts[0]) * sizeof(std::int32_t), cudaMemcpyDeviceToDevice, stream_),
                 "repeating chosen rows");
  });
  return selection;
}

std::vector<std::int32_t> CudaBackend::read(const Selection& selection, int head) {
  const CudaSelection& from = selection_of(selection);
  return to_host(stream_, from.rows.data() + from.offsets[std::size_t(head)],
                 std::size_t(from.counts[std::size_t(head)]));
}

std::vector<float> CudaBackend::read(const Scores& scores) {
  const auto& s = scores_of(scores).s;
  return to_host(stream_, s.data(), s.size());
}

double CudaBackend::coverage(const Scores& raw, const Selection& selection, std::int64_t rows) {
  const CudaSelection& keep = selection_of(selection);
  const DeviceArray<double> shares(stream_, std::size_t(raw.heads), "coverage");
  timer_.whole(Stage::scores, [&] {
    cuda::coverage(stream_, scores_of(raw).s.data(), raw.heads, raw.n, keep.rows.data(), keep.device_offsets.data(),
                   keep.device_counts.data(), keep.heads, rows, shares.data());
  });
  const std::vector<double> of_heads = to_host(stream_, shares.data(), shares.size());
  return std::accumulate(of_heads.begin(), of_heads.end(), 0.0) / raw.heads;
}

}  // namespace fastkv::cuda
