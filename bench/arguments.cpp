// Declaration of fastkv-bench's options.
#include "bench/arguments.hpp"

#include <algorithm>
#include <memory>

#include "common/lists.hpp"

namespace fastkv::bench {

namespace {

using tools::CommandLine;
using tools::Limits;
using tools::UsageError;

/// An option whose first occurrence replaces the default list and whose further ones add to it.
template <class T, class Parse>
void declare_list(CommandLine& command, const std::string& names, const std::string& value, std::vector<T>& list,
                  const std::string& help, const Parse& parse) {
  command.add_repeated(names, value, help,
                       [&list, parse, is_default = std::make_shared<bool>(true)](const std::string& text) {
                         if (*is_default) list.clear();
                         *is_default = false;
                         for (const auto& one : parse(text)) list.push_back(T(one));
                       });
}

template <class T>
auto words(std::vector<T> values) {
  return [values](const std::string& text) {
    std::vector<std::string> known;
    for (T value : values) known.push_back(name(value));
    std::vector<T> found;
    for (const std::string& part : tools::split_list(text)) {
      const auto at = std::find(known.begin(), known.end(), part);
      if (at == known.end()) throw UsageError(tools::expected_words(known));
      found.push_back(values[static_cast<std::size_t>(at - known.begin())]);
    }
    return found;
  };
}

auto counts(std::int64_t least) {
  return [least](const std::string& text) { return tools::parse_counts(text, least); };
}

std::vector<std::int64_t> parse_threads(const std::string& text) {
  std::vector<std::int64_t> threads = tools::parse_counts(text);
  for (std::int64_t n : threads) {
    if (n > 65536) throw UsageError("must be 1 to 65536, or 0 to choose");
  }
  return threads;
}

}  // namespace

std::vector<std::pair<std::string, Format>> formats() {
  return {{"md", Format::md}, {"json", Format::json}, {"jsonl", Format::jsonl}, {"csv", Format::csv}};
}

void Arguments::declare(CommandLine& command) {
  command.group("Tests (lists: 512,1024; ranges: 128-1024*2, 128-1024+128; options may be repeated)");
  declare_list(command, "-m,--model", "FILE", models, "the model, a GGUF file",
               [](const std::string& text) { return std::vector<std::string>{text}; });
  declare_list(command, "-p,--n-prompt", "N", n_prompt, "prompt tokens: test ppN (default 512; 0: none)", counts(0));
  declare_list(command, "-n,--n-gen", "N", n_gen, "tokens generated one by one: test tgN (default 128; 0: none)",
               counts(0));
  declare_list(command, "-pg,~--pg", "PP,TG", prompt_gen, "prompt and generation in one test: ppPP+tgTG",
               [](const std::string& text) { return std::vector{tools::parse_pair(text)}; });
  declare_list(command, "-d,--n-depth", "N", n_depth,
               "tokens before the timed ones (default 0); the prefill is whole, so ppN at depth D is the time of D + N "
               "tokens less the time of D",
               counts(0));
  declare_list(command, "-t,--threads", "N", threads,
               "threads for generation; default: the physical cores this process may use, within its CPU quota",
               parse_threads);
  declare_list(command, "-tb,--threads-batch", "N", threads_batch, "threads for the prompt; default: as -t",
               parse_threads);
  const std::vector<CacheType> types = {CacheType::f32, CacheType::f16, CacheType::bf16, CacheType::q8_0};
  declare_list(command, "-ctk,--cache-type-k", "f32|f16|bf16|q8_0", type_k,
               "type of cached keys (default f16; f32 with --compute f32)", words(types));
  declare_list(command, "-ctv,--cache-type-v", "f32|f16|bf16|q8_0", type_v, "type of cached values", words(types));
  declare_list(command, "--compute", "auto|f32|bf16|int8", compute,
               "arithmetic of linear layers and attention (default auto)",
               words<Compute>({Compute::automatic, Compute::f32, Compute::bf16, Compute::int8}));
  declare_list(command, "--method", tools::method_words(), methods.methods,
               "or all; default full; nothing is special about short prompts", [this](const std::string& text) {
                 const tools::MethodList list = tools::parse_methods(text);
                 methods.all = methods.all || list.all;
                 return list.methods;
               });
  declare_list(command, "--tsp-layer,~--tsp-idx", "N", tsp_layer,
               "fastkv: last layer that sees all tokens, 0-based (default: half the layers - 1)", counts(0));
  declare_list(command, "--tsp-rate", "R", tsp_rate, "fastkv: share of the prompt that later layers see (default 0.2)",
               tools::parse_rates);
  declare_list(command, "--retention,~--retain-rate", "R", retention,
               "share of the prompt kept in the cache per head (default 0.1)", tools::parse_rates);
  command.option("--head-budgets", "FILE", head_budgets,
                 "headkv: importance of each head, JSON; without it `--method all` leaves headkv out");

  command.group("Modes");
  command.flag("--sweep", sweep,
               "one row per depth 0, PP, 2 PP, ... up to -c: time of PP prompt tokens and of TG generated ones there");
  command.option("-c,--ctx-size", "N", context,
                 "--sweep: the depth to reach (default: the trained context, at most 8192)",
                 Limits<std::int64_t>{1, std::int64_t{1} << 40, "must be 1 or more"});
  command.choice<std::optional<std::string>, std::string>(
      "--suite", suite, {{"fastkv", "fastkv"}},
      "prompts of 8192, 32768 and 131072 tokens (-p), 256 generated (-n), full and fastkv (--method) in turn, with "
      "speed-ups");
  command.flag("--breakdown", breakdown, "time per stage and kind of layer, of prompts (-p) and generation (-n)");
  command.flag("--edges", edges,
               "time per token of prompts of n + 1 tokens over that of n: lengths n (-p, default 16, 32, ... 2048), "
               "windows, budgets");

  command.group("Measurement");
  command.option("-r,--repetitions", "N", repetitions, "timed runs of each test (default 5; --sweep 1; --suite 3)",
                 Limits<int>{1, 1 << 20, "must be 1 or more"});
  command.option("--warmup", "N", warmup, "runs before the timed ones (default 1)",
                 Limits<int>{0, 1 << 20, "must be 0 or more"});
  command.flag("--no-warmup", "--warmup 0", [this](bool on) { warmup = on ? 0 : warmup; });
  command.option("--delay", "SECONDS", delay, "pause before each test (default 0)",
                 Limits<int>{0, 1 << 20, "must be 0 or more"});
  command.option("-s,--seed", "N", seed, "of the random prompts (default 1)");

  command.group("Machine");
  tools::declare_load_options(command, engine);
  tools::declare_placement_options(command, engine);
  command.flag("--force", run.force, "run even if the memory plan exceeds what is available");

  command.group("Output");
  command.choice<Format, Format>("-o,--output", output, formats(), "on stdout (default md)");
  command.choice<Format, Format>("-oe,--output-err", output_err, formats(), "the same on stderr");
  command.flag("--progress", progress, "a line on stderr for every run");
  log.declare(command);
}

void Arguments::check(const CommandLine& command) {
  if (models.empty()) throw UsageError("no model: -m FILE");
  if (sweep + breakdown + edges + suite.has_value() > 1)
    throw UsageError("--sweep, --suite, --breakdown and --edges exclude each other");
  if (command.given("--ctx-size") && !sweep) throw UsageError("--ctx-size has no effect without --sweep");
  const char* mode = sweep ? "--sweep" : breakdown ? "--breakdown" : edges ? "--edges" : suite ? "--suite" : nullptr;
  for (const char* option : {"--n-depth", "--pg", "--n-gen"}) {
    if (mode && command.given(option) && (edges || std::string(option) != "--n-gen"))
      throw UsageError(std::string(option) + " has no effect with " + mode);
  }
  if (sweep) {
    if (!command.given("--repetitions")) repetitions = 1;
    if (n_prompt.size() != 1 || n_prompt[0] < 1) throw UsageError("--sweep takes one --n-prompt");
    if (n_gen.size() != 1 || n_gen[0] < 1) throw UsageError("--sweep takes one --n-gen");
    if (output == Format::csv || output == Format::json) throw UsageError("--sweep writes md or jsonl");
  }
  if (suite) {
    if (!command.given("--repetitions")) repetitions = 3;
    if (!command.given("--n-prompt")) n_prompt = {8192, 32768, 131072};
    if (!command.given("--n-gen")) n_gen = {256};
    if (!command.given("--method")) methods.methods = {MethodName::full, MethodName::fastkv};
    if (n_gen.size() != 1 || n_gen[0] < 1) throw UsageError("--suite takes one --n-gen");
  }
  if (edges) {
    if (!command.given("--n-prompt")) n_prompt = {16, 32, 64, 128, 256, 512, 1024, 2048};
    if (std::find(n_prompt.begin(), n_prompt.end(), 0) != n_prompt.end())
      throw UsageError("--edges: --n-prompt must be 1 or more");
    if (output == Format::csv) throw UsageError("--edges writes md, json or jsonl");
  }
  if (breakdown) {
    if (n_gen.size() != 1) throw UsageError("--breakdown takes one --n-gen");
    if (output == Format::csv) throw UsageError("--breakdown writes md, json or jsonl");
  }
  methods.drop_headkv(head_budgets.has_value());
  const std::vector<MethodName>& listed = methods.methods;
  for (const char* option : {"--tsp-layer", "--tsp-rate", "--retention", "--head-budgets"}) {
    if (command.given(option) &&
        std::none_of(listed.begin(), listed.end(), [&](MethodName method) { return reads(method, option); }))
      throw UsageError(std::string(option) + " has no effect with --method " + name(listed.front()));
  }
}

}  // namespace fastkv::bench
