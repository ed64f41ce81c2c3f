// Packing a whole model, tensor by tensor on all threads, and unpacking a layer's panels.
#include "backend/cpu/weights.hpp"

#include <sys/mman.h>

#include <algorithm>

#include "core/quant_blocks.hpp"

namespace fastkv::cpu {
namespace {

constexpr std::int64_t kPanelsPerItem = 8;

class Packer {
 public:
  Packer(ThreadTeam& team, HugePages huge_pages, const std::function<void(const TensorView&)>& packed,
         RunControl& control)
      : team_(team), huge_pages_(huge_pages), packed_(packed), control_(control) {}

  PackedTensor matrix(const TensorView& source) {
    PackedTensor packed(source, huge_pages_);
    const std::int64_t items = (packed.panels() + kPanelsPerItem - 1) / kPanelsPerItem;
    WorkQueue queue(items);
    team_.run([&](int thread) {
      for (std::int64_t item; (item = queue.next()) >= 0 && !control_.stopping();) {
        packed.pack_panels(source, item * kPanelsPerItem, std::min(packed.panels(), (item + 1) * kPanelsPerItem));
        control_.add_work(double(source.bytes()) / double(items));
        if (thread == 0) control_.poll();
      }
    });
    control_.throw_if_stopped();
    if (packed_) packed_(source);
    return packed;
  }

  std::vector<float> vector(const TensorView& source) {
    std::vector<float> out(source ? std::size_t(source.cols) : 0);
    if (source) dequantize_row(source.type, source.data, out.data(), out.size());
    return out;
  }

  Linear linear(const TensorView& w, const TensorView& bias) { return {matrix(w), vector(bias)}; }

 private:
  ThreadTeam& team_;
  HugePages huge_pages_;
  const std::function<void(const TensorView&)>& packed_;
  RunControl& control_;
};

template <class Visit>
void for_each_matrix(const ModelTensors& t, const Visit& visit) {
  visit(t.token_embd);
  if (!t.tied) visit(t.output);
  for (const LayerTensors& l : t.layers)
    for (const TensorView* m : {&l.q, &l.k, &l.v, &l.o, &l.gate, &l.up, &l.down}) visit(*m);
}

}  // namespace

std::size_t Weights::packed_bytes(const ModelTensors& tensors) {
  std::size_t total = 0;
  for_each_matrix(tensors, [&](const TensorView& t) { total += PackedTensor::packed_bytes(t); });
  return total;
}

std::size_t Weights::largest_tensor(const ModelTensors& tensors) {
  std::size_t largest = 0;
  for_each_matrix(tensors, [&](const TensorView& t) { largest = std::max(largest, t.bytes()); });
  return largest;
}

Weights pack_weights(const ModelTensors& t, ThreadTeam& team, HugePages huge_pages,
                     const std::function<void(const TensorView&)>& packed, RunControl& control) {
  Packer pack(team, huge_pages, packed, control);
  Weights w;
  w.token_embd = pack.matrix(t.token_embd);
  if (!t.tied) w.output_own = pack.matrix(t.output);
  w.output_norm = pack.vector(t.output_norm);
  w.output_bias = pack.vector(t.output_bias);
  for (const LayerTensors& l : t.layers)
    w.layers.push_back({pack.vector(l.attn_norm), pack.vector(l.ffn_norm), pack.linear(l.q, l.q_bias),
                        pack.linear(l.k, l.k_bias), pack.linear(l.v, l.v_bias), pack.linear(l.o, l.o_bias),
                        pack.linear(l.gate, l.gate_bias), pack.linear(l.up, l.up_bias),
                        pack.linear(l.down, l.down_bias)});
  return w;
}

void Weights::lock() const {
  const auto keep = [](const PackedTensor& w) {
    if (w) mlock(w.panel(0), w.bytes());
  };
  keep(token_embd);
  keep(output_own);
  for (const LayerWeights& l : layers)
    for (const Linear* m : {&l.q, &l.k, &l.v, &l.o, &l.gate, &l.up, &l.down}) keep(m->w);
}

std::size_t PanelSet::bytes(const Arithmetic& arithmetic, const std::vector<const PackedTensor*>& weights) {
  std::size_t total = 0;
  for (const PackedTensor* w : weights) total += ComputePanels::bytes(arithmetic, *w);
  return total;
}

PanelSet::PanelSet(const Arithmetic& arithmetic, const std::vector<const PackedTensor*>& weights,
                   std::uint8_t* memory) {
  for (const PackedTensor* w : weights) {
    panels_.emplace_back(arithmetic, *w, memory);
    memory += ComputePanels::bytes(arithmetic, *w);
    count_ += w->panels();
  }
}

void PanelSet::unpack(std::int64_t index, float* scratch) const {
  std::size_t i = 0;
  while (index >= panels_[i].weights().panels()) index -= panels_[i++].weights().panels();
  panels_[i].unpack(index, scratch);
}

}  // namespace fastkv::cpu
