// Model, machine and memory options.
#include "common/options.hpp"

#include <algorithm>

#include "fastkv/engine.hpp"

namespace fastkv::tools {

namespace {

constexpr int kMaxCpu = 65536;

void add_cpus(std::vector<int>& cpus, const std::vector<int>& more) {
  cpus.insert(cpus.end(), more.begin(), more.end());
  std::sort(cpus.begin(), cpus.end());
  cpus.erase(std::unique(cpus.begin(), cpus.end()), cpus.end());
}

void declare_threads(CommandLine& command, const std::string& names, int& target, const std::string& help) {
  command.add(names, "N", help, [&target](const std::string& text) {
    const std::int64_t threads = parse_integer(text);
    if (threads < -1 || threads > kMaxCpu) throw UsageError("must be 1 to 65536, or 0 to choose");
    target = static_cast<int>(std::max<std::int64_t>(threads, 0));  // llama.cpp writes "choose" as -1
  });
}

}  // namespace

std::vector<int> parse_cpu_mask(const std::string& text) {
  const std::string digits = text.rfind("0x", 0) == 0 || text.rfind("0X", 0) == 0 ? text.substr(2) : text;
  std::vector<int> cpus;
  for (std::size_t i = 0; i < digits.size(); ++i) {
    const char* const hex = "0123456789abcdef";
    const char* const found = std::find(hex, hex + 16, static_cast<char>(std::tolower(digits[digits.size() - 1 - i])));
    if (found == hex + 16) throw UsageError("expected a hexadecimal mask");
    for (int bit = 0; bit < 4; ++bit) {
      if ((found - hex) >> bit & 1) cpus.push_back(static_cast<int>(4 * i) + bit);
    }
  }
  if (cpus.empty()) throw UsageError("the mask selects no CPU");
  return cpus;
}

std::vector<int> parse_cpu_range(const std::string& text) {
  const std::size_t dash = text.find('-');
  const std::int64_t low = parse_integer(text.substr(0, dash));
  const std::int64_t high = dash == std::string::npos ? low : parse_integer(text.substr(dash + 1));
  if (low < 0 || high < low || high >= kMaxCpu) throw UsageError("expected LO-HI with 0 <= LO <= HI");
  std::vector<int> cpus;
  for (std::int64_t cpu = low; cpu <= high; ++cpu) cpus.push_back(static_cast<int>(cpu));
  return cpus;
}

void declare_model_options(CommandLine& command, EngineOptions& options) {
  command.option("-m,--model", "FILE", options.model, "the model, a GGUF file");
  declare_load_options(command, options);
}

void declare_load_options(CommandLine& command, EngineOptions& options) {
  command.choice<LoadMode, LoadMode>(
      "-lm,--load-mode", options.load_mode,
      {{"mmap", LoadMode::mmap}, {"none", LoadMode::none}, {"mlock", LoadMode::mlock}},
      "how the file is read while its weights are packed: mapped (default), by read(), or "
      "mapped with the packed weights locked in memory");
  command.flag("~--mmap,~!--no-mmap", "",
               [&options](bool on) { options.load_mode = on ? LoadMode::mmap : LoadMode::none; });
  command.flag("~--mlock", "", [&options](bool on) { options.load_mode = on ? LoadMode::mlock : LoadMode::mmap; });
}

void declare_thread_options(CommandLine& command, EngineOptions& options) {
  declare_threads(command, "-t,--threads", options.threads,
                  "threads for generation; default: the physical cores this process may use, within its CPU quota");
  declare_threads(command, "-tb,--threads-batch", options.threads_batch, "threads for the prompt; default: as -t");
}

void declare_compute_option(CommandLine& command, EngineOptions& options) {
  command.choice<Compute, Compute>(
      "--compute", options.compute,
      {{"auto", Compute::automatic}, {"f32", Compute::f32}, {"bf16", Compute::bf16}, {"int8", Compute::int8}},
      "arithmetic of linear layers and attention (default auto)");
}

void declare_placement_options(CommandLine& command, EngineOptions& options) {
  command.add_repeated("-C,--cpu-mask", "MASK", "use only these CPUs, a hexadecimal mask",
                       [&options](const std::string& text) { add_cpus(options.cpus, parse_cpu_mask(text)); });
  command.add_repeated("-Cr,--cpu-range", "LO-HI", "use only these CPUs; adds to -C",
                       [&options](const std::string& text) { add_cpus(options.cpus, parse_cpu_range(text)); });
  command.choice<NumaMode, NumaMode>("--numa", options.numa,
                                     {{"off", NumaMode::off},
                                      {"isolate", NumaMode::isolate},
                                      {"distribute", NumaMode::distribute},
                                      {"interleave", NumaMode::interleave},
                                      {"mirror", NumaMode::mirror},
                                      {"numactl", NumaMode::numactl},
                                      {"auto", NumaMode::automatic}},
                                     "placement on memory nodes (default auto)");
  command.choice<HugePages, HugePages>(
      "--hugepages", options.huge_pages,
      {{"auto", HugePages::automatic}, {"off", HugePages::off}, {"thp", HugePages::thp}},
      "transparent huge pages for weights and cache: where the kernel has them (default), never, or an error without");
  command.choice<Gemm, Gemm>("--gemm", options.gemm, {{"native", Gemm::native}, {"openblas", Gemm::openblas}},
                             "matrix multiplication of the prompt (default: openblas for f32, else native)");
  command.choice<PrefillPanels, PrefillPanels>(
      "--prefill-panels", options.panels,
      {{"auto", PrefillPanels::automatic}, {"build", PrefillPanels::build}, {"keep", PrefillPanels::keep}},
      "weights in compute form: built tensor by tensor, or kept in memory (default auto)");
  command.option("-ub,--ubatch-size", "N", options.tile_rows,
                 "prompt rows that go through a layer together; 0: chosen from the prompt's length (default)",
                 Limits<int>{0, 65536, "must be 0 to 65536"});
  command.option("--isa", "NAME", options.isa, "instruction set, as FASTKV_ISA (default: the best one)");
  std::string devices;
  for (const std::string& name : device_names()) devices += (devices.empty() ? "" : "|") + name;
  command.add("--device,~-dev", devices, "where the model runs (default cpu)",
              [&options, devices](const std::string& text) {
                const std::vector<std::string> known = device_names();
                const bool has = std::find(known.begin(), known.end(), text) != known.end();
                if (!has && text == "cuda") throw UsageError("this build has no CUDA support; expected " + devices);
                if (!has) throw UsageError("expected " + devices);
                options.device = text;
              });
}

void declare_memory_options(CommandLine& command, RunOptions& options, const char* context_help) {
  command.option("-c,--ctx-size", "N", options.context, context_help, Limits<int>{0, 1 << 30, "must be 0 or more"});
  const std::vector<std::pair<std::string, CacheType>> types = {
      {"f32", CacheType::f32}, {"f16", CacheType::f16}, {"bf16", CacheType::bf16}, {"q8_0", CacheType::q8_0}};
  command.choice<CacheType, CacheType>("-ctk,--cache-type-k", options.cache_k, types,
                                       "type of cached keys (default f16; f32 with --compute f32)");
  command.choice<CacheType, CacheType>("-ctv,--cache-type-v", options.cache_v, types, "type of cached values");
  command.add("-fa,--flash-attn", "on|auto", "accepted: attention is always tiled", [](const std::string& text) {
    if (text == "off" || text == "0") throw UsageError("attention is always tiled; expected on or auto");
    if (text != "on" && text != "auto" && text != "1") throw UsageError("expected on or auto");
  });
  command.flag("--force", options.force, "run even if the memory plan exceeds what is available");
}

}  // namespace fastkv::tools
