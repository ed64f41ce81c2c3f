// make-model: writes a GGUF with random weights at a named shape, for benchmarks and tests that need no download.
#include <algorithm>
#include <cstdio>
#include <string>
#include <thread>

#include "common/cli.hpp"
#include "common/signals.hpp"
#include "fastkv/gguf_writer.hpp"
#include "make-model/shapes.hpp"
#include "make-model/vocabulary.hpp"
#include "make-model/weights.hpp"

namespace fastkv::tools {
namespace {

struct Options {
  const Shape* shape = nullptr;
  std::string type = "q4_0";
  std::int64_t seed = 1;
  int threads = int(std::max(1u, std::thread::hardware_concurrency()));
  std::string output;
};

void add_hyper_parameters(GgufWriter& writer, const Shape& shape, const std::string& type) {
  writer.add_string("general.architecture", "llama");
  writer.add_string("general.name", "random " + std::string(shape.name) + " " + type);
  writer.add<std::uint32_t>("general.file_type", file_type(type));
  writer.add<std::uint32_t>("general.quantization_version", 2);
  writer.add<std::uint32_t>("llama.block_count", shape.n_layer);
  writer.add<std::uint32_t>("llama.context_length", shape.n_ctx);
  writer.add<std::uint32_t>("llama.embedding_length", shape.n_embd);
  writer.add<std::uint32_t>("llama.feed_forward_length", shape.n_ff);
  writer.add<std::uint32_t>("llama.attention.head_count", shape.n_head);
  writer.add<std::uint32_t>("llama.attention.head_count_kv", shape.n_head_kv);
  writer.add<std::uint32_t>("llama.attention.key_length", shape.head_dim);
  writer.add<std::uint32_t>("llama.attention.value_length", shape.head_dim);
  writer.add<float>("llama.attention.layer_norm_rms_epsilon", 1e-5f);
  writer.add<std::uint32_t>("llama.rope.dimension_count", shape.head_dim);
  writer.add<float>("llama.rope.freq_base", shape.rope_base);
  writer.add<std::uint32_t>("llama.vocab_size", shape.n_vocab);
}

void print_plan(const std::vector<TensorPlan>& plan) {
  for (const auto& tensor : plan) {
    std::string dims;
    for (const auto dim : tensor.dims) dims += (dims.empty() ? "" : ", ") + std::to_string(dim);
    std::printf("%-28s %-5s {%s}\n", tensor.name.c_str(), tensor.type.c_str(), dims.c_str());
  }
}

int make_model(const Options& options) {
  const auto plan = plan_tensors(*options.shape, options.type);
  GgufWriter writer(options.output);
  add_hyper_parameters(writer, *options.shape, options.type);
  add_vocabulary(writer, *options.shape);
  for (const auto& tensor : plan) writer.add_tensor(tensor.name, tensor.type, tensor.dims);
  print_plan(plan);
  write_weights(writer, *options.shape, plan, std::uint64_t(options.seed), options.threads);
  writer.finish();
  std::printf("%s: %zu tensors, %.1f MiB\n", options.output.c_str(), plan.size(),
              double(writer.declared_bytes()) / (1 << 20));
  return 0;
}

int run(int argc, char** argv) {
  Options options;
  CommandLine command("make-model", "--shape NAME --type TYPE -o FILE.gguf",
                      "Writes a model with random weights, and a vocabulary that tokenizers run on.");
  std::vector<std::pair<std::string, const Shape*>> names;
  for (const auto& shape : shapes()) names.emplace_back(shape.name, &shape);
  std::vector<std::pair<std::string, std::string>> types;
  for (const char* type : {"f32", "f16", "bf16", "q4_0", "q8_0", "q4_k_m"}) types.emplace_back(type, type);
  command.choice("--shape", options.shape, names, "model whose sizes to use");
  command.choice("--type", options.type, types,
                 "file type, mixed per tensor as llama.cpp's quantiser does (default: q4_0)");
  command.option("-s,--seed", "N", options.seed, "seed of the weights (default: 1)",
                 Limits<std::int64_t>{0, INT64_MAX, "must be at least 0"});
  command.option("-t,--threads", "N", options.threads, "threads (default: all)",
                 Limits<int>{1, 1024, "must be in 1..1024"});
  command.option("-o,--output", "FILE", options.output, "file to write");
  if (const auto status = command.parse(argc, argv)) return *status;
  if (options.shape == nullptr) throw UsageError("--shape is required");
  if (options.output.empty()) throw UsageError("-o FILE is required");
  return make_model(options);
}

}  // namespace
}  // namespace fastkv::tools

int main(int argc, char** argv) {
  fastkv::tools::install_signal_handlers();
  return fastkv::tools::run_tool("make-model", [&] { return fastkv::tools::run(argc, argv); });
}
