// Packing a whole model, tensor by tensor on all threads.
#include "backend/cpu/weights.hpp"

#include <sys/mman.h>

#include <algorithm>

#include "core/quant_blocks.hpp"
#include "core/round.hpp"
#include "runtime/shared_work.hpp"

namespace fastkv::cpu {
namespace {

constexpr std::int64_t kPanelsPerItem = 8;
// Decode reads gate and up side by side: not both should enter a new page at the same time (gemv.inl.hpp).
constexpr std::size_t kHalfPage = 2048;

class Packer {
 public:
  Packer(ThreadTeam& team, const Placement& placement, HugePages huge_pages,
         const std::function<void(const TensorView&)>& packed, RunControl& control)
      : team_(team), placement_(placement), huge_pages_(huge_pages), packed_(packed), control_(control) {}

  PackedTensor matrix(const TensorView& source) { return matrix(source, {0, PackedTensor::panels_of(source)}); }

  PackedTensor matrix(const TensorView& source, PanelList list, std::size_t skew = 0) {
    PackedTensor packed(source, placement_, list, huge_pages_, skew);
    const std::int64_t items = ceil_div(packed.panels(), kPanelsPerItem);
    SharedWork work(team_);
    std::vector<int> packed_in(std::size_t(items), 0);  // the copy
    std::vector<SharedWork> missing;                    // of each copy
    for (int copy = 0; copy < packed.copies(); ++copy) missing.emplace_back(team_);
    team_.run([&](int thread) {
      for (std::int64_t item; (item = work.next(thread, items)) >= 0 && !control_.stopping();) {
        packed.pack_panels(source, item * kPanelsPerItem, end_of(packed, item));
        packed_in[std::size_t(item)] = current_node();
        control_.add_work(double(source.bytes()) / double(items));
        if (thread == 0) control_.poll();
      }
      if (packed.copies() == 1) return;
      team_.barrier();
      if (!control_.stopping()) mirror(thread, packed, packed_in, missing);
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

  Linear linear(const TensorView& w, const TensorView& bias) { return {matrix(w), vector(bias), {}, {}}; }
  Linear linear(const TensorView& w, const TensorView& bias, PanelList list, std::size_t skew = 0) {
    return {matrix(w, list, skew), vector(bias), {}, {}};
  }

 private:
  /// Copies on the other nodes, each written by the threads of its node.
  void mirror(int thread, PackedTensor& packed, const std::vector<int>& packed_in,
              std::vector<SharedWork>& missing) const {
    for (int i = 0; i < packed.copies(); ++i) {
      const int to = (current_node() + i) % packed.copies();  // then those of nodes without a thread
      for (std::int64_t item; (item = missing[std::size_t(to)].next(thread, std::int64_t(packed_in.size()))) >= 0;) {
        const int from = packed_in[std::size_t(item)];
        if (from != to) packed.copy_panels(from, to, item * kPanelsPerItem, end_of(packed, item));
      }
    }
  }
  static std::int64_t end_of(const PackedTensor& packed, std::int64_t item) {
    return std::min(packed.panels(), (item + 1) * kPanelsPerItem);
  }

  ThreadTeam& team_;
  const Placement& placement_;
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

Weights pack_weights(const ModelTensors& t, ThreadTeam& team, const Placement& placement, HugePages huge_pages,
                     const std::function<void(const TensorView&)>& packed, RunControl& control) {
  Packer pack(team, placement, huge_pages, packed, control);
  Weights w;
  w.token_embd = pack.matrix(t.token_embd);
  if (!t.tied) w.output_own = pack.matrix(t.output);
  w.output_norm = pack.vector(t.output_norm);
  w.output_bias = pack.vector(t.output_bias);
  for (const LayerTensors& l : t.layers) {
    const std::int64_t q = PackedTensor::panels_of(l.q), k = PackedTensor::panels_of(l.k),
                       qkv = q + k + PackedTensor::panels_of(l.v);
    w.layers.push_back({pack.vector(l.attn_norm), pack.vector(l.ffn_norm), pack.linear(l.q, l.q_bias, {0, qkv}),
                        pack.linear(l.k, l.k_bias, {q, qkv}), pack.linear(l.v, l.v_bias, {q + k, qkv}),
                        pack.linear(l.o, l.o_bias), pack.linear(l.gate, l.gate_bias),
                        pack.linear(l.up, l.up_bias, {0, PackedTensor::panels_of(l.up)}, kHalfPage),
                        pack.linear(l.down, l.down_bias)});
  }
  return w;
}

void Weights::lock() const {
  const auto keep = [](const PackedTensor& w) {
    for (const Buffer& copy : w.memory()) mlock(copy.as<>(), copy.bytes());
  };
  keep(token_embd);
  keep(output_own);
  for (const LayerWeights& l : layers)
    for (const Linear* m : {&l.q, &l.k, &l.v, &l.o, &l.gate, &l.up, &l.down}) keep(m->w);
}

void Linear::keep_panels(const Arithmetic& arithmetic, ThreadTeam& team, HugePages huge_pages) {
  const std::int64_t chunk = chunk_inputs(arithmetic, w.k32());
  const auto bytes = [&](std::int64_t k0) {
    return ComputePanels::bytes(arithmetic, w.panels(), std::min(chunk, w.k32() - k0));
  };
  std::size_t total = 0;
  for (std::int64_t k0 = 0; k0 < w.k32(); k0 += chunk) total += bytes(k0);
  kept_memory = Buffer(total, "weight panels", huge_pages);
  std::uint8_t* memory = kept_memory.as<std::uint8_t>();
  for (std::int64_t k0 = 0; k0 < w.k32(); memory += bytes(k0), k0 += chunk)
    kept.emplace_back(arithmetic, w, 0, w.panels(), k0, std::min(chunk, w.k32() - k0), memory);
  SharedWork work(team);
  team.run([&](int thread) {
    Array<float> scratch(std::size_t(w.k32() * simd::kLanes), "weight panel");
    for (std::int64_t p; (p = work.next(thread, w.panels())) >= 0;)
      for (const ComputePanels& panels : kept) panels.unpack(p, scratch.data());
  });
}

void Weights::keep_panels(const Arithmetic& arithmetic, ThreadTeam& team, HugePages huge_pages) {
  for (LayerWeights& l : layers)
    for (Linear* m : {&l.q, &l.k, &l.v, &l.o, &l.gate, &l.up, &l.down}) m->keep_panels(arithmetic, team, huge_pages);
}

}  // namespace fastkv::cpu
