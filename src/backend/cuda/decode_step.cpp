// One decode step: all layers and the output head of a token as one graph, launched again for every token.
//
// What a step feeds lies in StepState on the device, so that the graph stays the same as long as the caches lie where
// they did. Stages are not told apart: events between them would cost more than the shortest.
#include <algorithm>

#include "backend/cuda/cuda_backend.hpp"
#include "core/check.hpp"

namespace fastkv::cuda {
namespace {

CudaLayerCache& cache_of(const SequenceStep& sequence, std::size_t layer) {
  return static_cast<CudaLayerCache&>(*sequence.layers[layer]);
}

}  // namespace

void CudaBackend::decode_step(std::span<const SequenceStep> sequences, const StepOutput& out, RunControl& control) {
  for (std::size_t s = 0; s < sequences.size(); ++s) {
    const SequenceStep& sequence = sequences[s];
    check(sequence.layers.size() == std::size_t(config_.n_layer) && !sequence.tokens.empty(), ErrorCode::internal,
          "decode_step: ", sequence.layers.size(), " layers, ", sequence.tokens.size(), " tokens");
    for (std::size_t i = 0; i < sequence.tokens.size(); ++i) {
      for (std::size_t l = 0; l < sequence.layers.size(); ++l) cache_of(sequence, l).append(1);
      const std::int64_t appended = cache_of(sequence, 0).appended();
      for (std::size_t l = 0; l < sequence.layers.size(); ++l)
        check(cache_of(sequence, l).appended() == appended, ErrorCode::internal, "decode_step: layer ", l, " has ",
              cache_of(sequence, l).appended(), " generated rows, layer 0 ", appended);
      make_token_space(sequence, out.banned);
      const bool last = i + 1 == sequence.tokens.size();
      decode_token(
          sequence,
          {sequence.tokens[i], std::int32_t(sequence.first_position) + std::int32_t(i), std::int32_t(appended)},
          !last      ? Result::none
          : out.best ? Result::best
                     : Result::logits);
      control.poll();
      control.throw_if_stopped();
    }
    if (out.logits)
      copy_to_host(stream_, out.logits + s * std::size_t(config_.n_vocab), token_.logits.data(), token_.logits.bytes());
    if (!out.best) continue;
    copy_to_host(stream_, out.best + s, token_.best.data(), sizeof(std::int32_t));
    check(out.best[s] >= 0, ErrorCode::internal, "decode_step: a logit is NaN or infinite");
    token_.known = {out.best[s], token_.known.position + 1, token_.known.appended + 1};
  }
}

void CudaBackend::make_token_space(const SequenceStep& sequence, std::span<const std::int32_t> banned) {
  const ModelConfig& c = config_;
  if (token_.x.size() == 0) {
    token_.state = DeviceArray<StepState>(stream_, 1, "state of a step");
    token_.x = DeviceArray<float>(stream_, std::size_t(c.n_embd), "residual stream of a token");
    token_.angles = DeviceArray<float2>(stream_, std::size_t(shape_.d / 2), "rotation of a token");
    token_.qkv = DeviceArray<float>(stream_, std::size_t(c.q_dim() + 2 * c.kv_dim()), "projections of a token");
    token_.hidden = DeviceArray<bf16>(stream_, std::size_t(std::max(c.q_dim(), c.n_ff)), "activations of a token");
    token_.logits = DeviceArray<float>(stream_, std::size_t(c.n_vocab), "logits");
    token_.best = DeviceArray<std::int32_t>(stream_, 1, "best token");
    token_.ranking = DeviceBuffer(stream_, arg_max_bytes(c.n_vocab), "best token");
  }
  if (!std::equal(banned.begin(), banned.end(), token_.host_banned.begin(), token_.host_banned.end())) {
    token_.banned = to_device<std::int32_t>(stream_, banned, "banned tokens");
    token_.host_banned.assign(banned.begin(), banned.end());
    ++token_.place;
  }
  std::size_t bytes = 0;
  for (std::size_t l = 0; l < sequence.layers.size(); ++l)
    bytes = std::max(bytes, attention_decode_bytes(shape_, cache_of(sequence, l).view().capacity));
  if (bytes <= token_.partial.bytes()) return;
  token_.partial = DeviceBuffer(stream_, bytes, "partial attention");
  ++token_.place;
}

void CudaBackend::decode_token(const SequenceStep& sequence, const StepState& state, Result result) {
  if (state != token_.known) copy_to_device(stream_, token_.state.data(), &state, sizeof state);
  token_.known = state;
  if (decode_by_ == DecodeBy::launches) {
    give_token(sequence, result);
  } else {
    DecodeGraph::Key key = {std::uint64_t(result), token_.place};
    for (std::size_t l = 0; l < sequence.layers.size(); ++l) key.push_back(cache_of(sequence, l).place());
    graph_.run(stream_, key, [&] { give_token(sequence, result); });
  }
}

void CudaBackend::give_token(const SequenceStep& sequence, Result result) {
  embed_token(stream_, weights_.token_embd, token_.state.data(), config_.n_embd, inv_freq_.data(), shape_.d,
              config_.rope_magnitude, token_.x.data(), token_.angles.data());
  for (std::size_t l = 0; l < sequence.layers.size(); ++l) decode_layer(weights_.layers[l], cache_of(sequence, l));
  if (result == Result::none) return;
  const NormedInput input{token_.x.data(), weights_.output_norm, config_.rms_eps};
  project(stream_, {&weights_.decode_output, 1}, input, {}, token_.logits.data());
  if (result != Result::best) return;
  arg_max(stream_, token_.logits.data(), config_.n_vocab, token_.banned.data(), int(token_.banned.size()),
          token_.ranking.data(), token_.state.data(), token_.best.data());
}

void CudaBackend::decode_layer(const LayerWeights& weights, const CudaLayerCache& cache) {
  float *x = token_.x.data(), *q = token_.qkv.data(), *k = q + config_.q_dim(), *v = k + config_.kv_dim();
  const Rotation rotation{token_.angles.data(), shape_.d, config_.q_dim() + config_.kv_dim()};
  project(stream_, weights.decode_qkv, {x, weights.attn_norm, config_.rms_eps}, rotation, q);
  attention_decode(stream_, shape_, {q, k, v}, cache.view(), &token_.state.data()->appended, token_.partial.data(),
                   token_.hidden.data());
  add_product(stream_, weights.decode_o, token_.hidden.data(), x);
  gate_up(stream_, weights.decode_gate, weights.decode_up, {x, weights.ffn_norm, config_.rms_eps},
          token_.hidden.data());
  add_product(stream_, weights.decode_down, token_.hidden.data(), x);
}

}  // namespace fastkv::cuda
