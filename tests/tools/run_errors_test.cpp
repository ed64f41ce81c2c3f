// fastkv-run refuses what is wrong: one line on stderr, nothing on stdout, the documented exit status.
#include <gtest/gtest.h>

#include "support/fixtures.hpp"
#include "support/process.hpp"

namespace fastkv::test {
namespace {

const std::string& model() {
  static const std::string path = (fixtures() / "models" / "stories260K-f32.gguf").string();
  return path;
}

/// The last line of stderr, and that stdout is empty and the status right.
std::string refusal(int status, const std::vector<std::string>& arguments, const ProcessOptions& options = {}) {
  const Outcome outcome = run_program("fastkv-run", arguments, options);
  EXPECT_EQ(outcome.status, status) << outcome.err;
  EXPECT_FALSE(outcome.killed);
  EXPECT_EQ(outcome.out, "");
  std::string err = outcome.err;
  if (!err.empty() && err.back() == '\n') err.pop_back();
  std::string line = err.substr(err.rfind('\n') + 1);
  const std::string prefix = "fastkv-run: ";
  EXPECT_EQ(line.substr(0, prefix.size()), prefix) << outcome.err;
  return line.substr(std::min(prefix.size(), line.size()));
}

struct Case {
  std::vector<std::string> arguments;
  std::string message;
};

TEST(RunErrors, UsageWithoutOpeningAModel) {
  const std::vector<Case> cases = {
      {{"-p", "x"}, "no model: -m FILE"},
      {{"-m", "none.gguf"}, "no prompt: -p TEXT, -f FILE, -q TEXT or --tokens FILE"},
      {{"-m", "x", "-p", "x", "--tokens", "y"}, "--tokens and --prompt exclude each other"},
      {{"-m", "x", "-cnv", "--tokens", "y"}, "--tokens and --conversation exclude each other"},
      {{"-m", "x", "-p", "x", "--tsp-rate", "0.2", "--tsp-tokens", "9"},
       "--tsp-rate and --tsp-tokens exclude each other"},
      {{"-m", "x", "-p", "x", "--retention", "0.2", "--kv-budget", "9"},
       "--retention and --kv-budget exclude each other"},
      {{"-m", "x", "-p", "x", "--eviction_mode", "constant", "--retain_rate", "0.1"},
       "--eviction-mode constant and --retention exclude each other"},
      {{"-m", "x", "-p", "x", "--filter-layer", "3"}, "--filter-layer has no effect with --method fastkv"},
      {{"-m", "x", "-p", "x", "--pyramid", "60", "--method", "full"}, "--pyramid has no effect with --method full"},
      {{"-m", "x", "-p", "x", "--delta", "1", "--compare", "full,fastkv"},
       "--delta has no effect with --compare full,fastkv"},
      {{"-m", "x", "-p", "x", "--preset", "paper", "--method", "full"}, "--preset has no effect with --method full"},
      {{"-m", "x", "-p", "x", "--tsp-rate", "0.1", "--method", "snapkv"},
       "--tsp-rate has no effect with --method snapkv"},
      {{"-m", "x", "-p", "x", "--window", "9", "--compare", "full,streamingllm"},
       "--window has no effect with --compare full,streamingllm"},
      {{"-m", "x", "-p", "x", "--pyramid", "0", "--method", "pyramidinfer"}, "--pyramid 0: must be 1 or more"},
      {{"-m", "x", "-p", "x", "--h2o-mask", "none", "--method", "h2o"},
       "--h2o-mask none: expected causal or reference"},
      {{"-m", "x", "-p", "x", "--method", "best"},
       "--method best: expected full, fastkv, snapkv, streamingllm, h2o, gemfilter, pyramidinfer, headkv, pyramidkv, "
       "adakv or tova"},
      {{"-m", "x", "-p", "x", "--preset", "fast"}, "--preset fast: expected paper or accurate"},
      {{"-m", "x", "-p", "x", "--compare", "full,snap"},
       "--compare full,snap: expected full, fastkv, snapkv, streamingllm, h2o, gemfilter, pyramidinfer, headkv, "
       "pyramidkv, adakv or tova"},
      {{"-m", "x", "-p", "x", "--compare", "full,full"}, "--compare full,full: a method is named twice"},
      {{"-m", "x", "-p", "x", "--compare", "full", "--trace", "t"}, "--compare and --trace exclude each other"},
      {{"-m", "x", "-q", "a", "-q", "b", "--trace", "t"}, "--trace takes one --question"},
      {{"-m", "x", "-p", "x", "--save-logits", "l.npy"}, "--save-logits needs --method full"},
      {{"-m", "x", "-p", "x", "--kernel", "6"}, "--kernel 6: must be odd"},
      {{"-m", "x", "-p", "x", "--retention", "0"}, "--retention 0: must be in (0, 1]"},
      {{"-m", "x", "-p", "x", "--tsp-rate", "1.5"}, "--tsp-rate 1.5: must be in (0, 1]"},
      {{"-m", "x", "-p", "x", "--window", "-3"}, "--window -3: must be 1 or more"},
      {{"-m", "x", "-p", "x", "-n", "-2"}, "--n-predict -2: must be -1 or more"},
      {{"-m", "x", "-p", "x", "--temp", "-1"}, "--temp -1: must be 0 or more"},
      {{"-m", "x", "-p", "x", "-r", ""}, "--reverse-prompt : must not be empty"},
      {{"-m", "x", "-p", "x", "-l", "15043"}, "--logit-bias 15043: expected ID+BIAS or ID-BIAS"},
      {{"-m", "x", "-p", "x", "-fa", "off"}, "--flash-attn off: attention is always tiled; expected on or auto"},
      {{"-m", "x", "-p", "x", "-ctk", "q4_0"}, "--cache-type-k q4_0: expected f32, f16, bf16 or q8_0"},
      {{"-m", "x", "-p", "x", "--device", "cuda"}, "--device cuda: this build has no CUDA support; expected cpu"},
      {{"-m", "x", "-p", "x", "--numa", "spread"},
       "--numa spread: expected off, isolate, distribute, interleave, mirror, numactl or auto"},
      {{"-m", "x", "-p", "x", "-C", "0xZ"}, "--cpu-mask 0xZ: expected a hexadecimal mask"},
      {{"-m", "x", "-p", "x", "-Cr", "4-2"}, "--cpu-range 4-2: expected LO-HI with 0 <= LO <= HI"},
      {{"-m", "x", "-p", "x", "--grammar", "g"}, "--grammar is a llama.cpp option that fastkv does not support"},
      {{"-m", "x", "-p", "x", "--retension", "0.1"}, "unknown option --retension; did you mean --retention?"},
      {{"-m", "x", "-p", "x", "-no-cnv", "-sys", "s"}, "--system-prompt and --no-conversation exclude each other"},
  };
  for (const Case& c : cases) EXPECT_EQ(refusal(2, c.arguments), c.message);
}

// spec/cli.md "The method": which methods read a flag; with every other it is an error.
TEST(RunErrors, EveryFlagThatAMethodDoesNotRead) {
  const std::string budget = " fastkv snapkv streamingllm h2o gemfilter headkv pyramidkv adakv tova ";
  const std::string pooled = " fastkv snapkv headkv pyramidkv adakv ", grouped = " snapkv h2o headkv ";
  struct Flag {
    const char *name, *value;
    std::string methods;
  };
  const std::vector<Flag> flags = {{"--tsp-layer", "1", " fastkv "},
                                   {"--tsp-rate", "0.5", " fastkv "},
                                   {"--tsp-tokens", "100", " fastkv "},
                                   {"--tsp-window", "9", " fastkv "},
                                   {"--tsp-shift", "1", " fastkv "},
                                   {"--retention", "0.5", budget},
                                   {"--kv-budget", "100", budget},
                                   {"--window", "4", pooled + "h2o "},
                                   {"--kernel", "5", pooled},
                                   {"--pooling", "avg", pooled},
                                   {"--group-reduce", "max", grouped + "fastkv "},
                                   {"--sinks", "2", pooled + "h2o streamingllm tova "},
                                   {"--granularity", "kv_head", grouped},
                                   {"--h2o-mask", "reference", " h2o "},
                                   {"--filter-layer", "1", " gemfilter "},
                                   {"--pyramid", "50", " pyramidinfer "},
                                   {"--recent", "0.5", " pyramidinfer "},
                                   {"--delta", "0.5", " pyramidinfer "},
                                   {"--gamma", "1.5", " pyramidinfer "},
                                   {"--head-budgets", "none.json", " headkv "}};
  for (const char* method : {"full", "fastkv", "snapkv", "streamingllm", "h2o", "gemfilter", "pyramidinfer", "headkv",
                             "pyramidkv", "adakv", "tova"}) {
    for (const Flag& flag : flags) {
      const std::string word = std::string(" ") + method + " ";
      // a flag that is read gets as far as the model, which is not there
      const bool read = flag.methods.find(word) != std::string::npos;
      std::vector<std::string> arguments = {"-m", "none.gguf", "-p", "x", "--method", method, flag.name, flag.value};
      if (std::string(flag.name) == "--group-reduce" && grouped.find(word) != std::string::npos)
        arguments.insert(arguments.end(), {"--granularity", "kv_head"});  // per query head there is no group
      EXPECT_EQ(refusal(read ? 1 : 2, arguments),
                read ? "none.gguf: cannot open: No such file or directory"
                     : std::string(flag.name) + " has no effect with --method " + method);
    }
  }
}

TEST(RunErrors, HeadBudgetFiles) {
  FASTKV_REQUIRE_FILE(model());
  const Scratch scratch;
  const auto with = [&](const std::string& path) {
    return std::vector<std::string>{"-m", model(), "-p", "Once", "--method", "headkv", "--head-budgets", path};
  };
  const std::string none = scratch / "none.json";
  EXPECT_EQ(refusal(1, with(none)), "--head-budgets " + none + ": cannot open");
  const std::string bad = scratch.write("bad.json", "{\"0-0\": [1,");
  EXPECT_EQ(refusal(1, with(bad)),
            bad + ": expected a JSON object {\"layer-head\": [values]}, found text that is not JSON");
  const std::string few = scratch.write("few.json", "{\"0-0\": [1]}");
  EXPECT_EQ(refusal(1, with(few)),
            few + ": expected an entry for each of 5 layers and 8 heads, found none for \"0-1\"");
}

TEST(RunErrors, MethodParametersAgainstTheModel) {
  FASTKV_REQUIRE_FILE(model());
  const std::vector<Case> cases = {
      {{"--tsp-rate", "0.2", "--method", "full"}, "--tsp-rate has no effect with --method full"},
      {{"--tsp-layer", "40"}, "--tsp-layer 40: the model has 5 layers (0..4)"},
      {{"--kv-budget", "8"}, "--kv-budget 8 leaves no room beyond --window 8"},
      {{"--tsp-tokens", "16", "--window", "16"}, "--tsp-tokens 16 leaves no room beyond --window 16"},
      {{"--kv-budget", "4", "--window", "4", "--method", "h2o"}, "--kv-budget 4 leaves no room beyond --window 4"},
      {{"--kv-budget", "9", "--sinks", "2", "--method", "snapkv"},
       "--kv-budget 9 leaves no room for --window 8 and --sinks 2"},
      {{"--kv-budget", "4", "--method", "streamingllm"}, "--kv-budget 4 leaves no room beyond --sinks 4"},
      {{"--filter-layer", "5", "--method", "gemfilter"}, "--filter-layer 5: the model has 5 layers (0..4)"},
      {{"--pyramid", "40", "--method", "pyramidinfer"}, "--pyramid 40: expected 35, 50 or 60"},
      {{"--pyramid", "50", "--delta", "0.5", "--method", "pyramidinfer"}, "--pyramid and --delta exclude each other"},
      {{"--method", "headkv"}, "--method headkv needs --head-budgets FILE.json"},
      {{"--group-reduce", "max", "--method", "snapkv"}, "--group-reduce has no effect without --granularity kv_head"},
      {{"-cnv"}, "--conversation: the model has no chat template; give --chat-template NAME"},
      {{"-l", "512+1"}, "--logit-bias 512: the vocabulary has 512 tokens"},
  };
  for (const Case& c : cases) {
    std::vector<std::string> arguments = {"-m", model(), "-p", "Once upon a time", "-n", "1"};
    arguments.insert(arguments.end(), c.arguments.begin(), c.arguments.end());
    EXPECT_EQ(refusal(2, arguments), c.message);
  }
}

TEST(RunErrors, RunTime) {
  FASTKV_REQUIRE_FILE(model());
  const Scratch scratch;
  EXPECT_EQ(refusal(1, {"-m", scratch / "none.gguf", "-p", "x"}),
            scratch / "none.gguf" + ": cannot open: No such file or directory");
  EXPECT_EQ(refusal(1, {"-m", model(), "-f", scratch / "none.txt"}),
            "cannot open " + scratch / "none.txt" + ": No such file or directory");
  EXPECT_EQ(refusal(1, {"-m", model(), "-f", scratch / "."}), "cannot read " + scratch / "." + ": Is a directory");
  EXPECT_EQ(refusal(1, {"-m", model(), "-p", ""}), "the prompt is empty");
  EXPECT_EQ(refusal(1, {"-m", model(), "-f", "-"}), "the prompt is empty");
  EXPECT_EQ(refusal(1, {"-m", model(), "--tokens", scratch.write("e.json", "[]")}),
            scratch / "e.json" + ": the prompt is empty");
  EXPECT_EQ(refusal(1, {"-m", model(), "--tokens", scratch.write("h.json", "[1, 2.5]")}),
            scratch / "h.json" + ": expected a token id at index 1, found 2.5");
  EXPECT_NE(refusal(1, {"-m", model(), "--tokens", scratch.write("v.json", "[1, 512]")}).find("512"),
            std::string::npos);
  const std::string utf8 = refusal(1, {"-m", model(), "-f", scratch.write("u.txt", "fine, then \xff")});
  EXPECT_NE(utf8.find("UTF-8"), std::string::npos) << utf8;
  EXPECT_NE(utf8.find("11"), std::string::npos) << "the byte offset: " << utf8;
  EXPECT_EQ(refusal(1, {"-m", scratch.write("short.gguf", "GGUF\x03"), "-p", "x"}).find(scratch / "short.gguf"), 0u)
      << "the file is named";
  std::string many = "[1";
  for (int i = 0; i < 200; ++i) many += ",2";
  EXPECT_EQ(refusal(1, {"-m", model(), "--tokens", scratch.write("m.json", many + "]")})
                .find("prompt is too long (201 tokens, context 128)"),
            0u);
  EXPECT_EQ(refusal(1, {"-m", model(), "-p", "x", "--trace", scratch / "no/t.json"}),
            "cannot write " + scratch / "no/t.json" + ": No such file or directory");
}

TEST(RunErrors, AFullDisk) {
  FASTKV_REQUIRE_FILE(model());
  const std::vector<std::string> base = {"-m", model(), "-p", "Once upon a time", "-n", "4", "--temp", "0"};
  for (const char* flag : {"--trace", "--perf-json"}) {
    std::vector<std::string> arguments = base;
    arguments.insert(arguments.end(), {flag, "/dev/full"});
    const Outcome outcome = run_program("fastkv-run", arguments);
    EXPECT_EQ(outcome.status, 1);
    EXPECT_NE(outcome.err.find("fastkv-run: cannot write /dev/full: No space left on device\n"), std::string::npos)
        << outcome.err;
  }
  ProcessOptions full;
  full.stdout_path = "/dev/full";
  const Outcome outcome = run_program("fastkv-run", base, full);
  EXPECT_EQ(outcome.status, 1);
  EXPECT_NE(outcome.err.find("fastkv-run: cannot write to stdout: No space left on device\n"), std::string::npos);
  EXPECT_TRUE(std::filesystem::is_character_file("/dev/full"));
}

TEST(RunErrors, APlanThatDoesNotFitNamesThePromptThatDoes) {
  FASTKV_REQUIRE_FILE(model());
  const std::vector<std::string> huge = {"-m", model(), "--dry-run", "--method", "full", "-c", "1000000000"};
  const Outcome outcome = run_program("fastkv-run", huge);
  EXPECT_EQ(outcome.status, 1);
  EXPECT_NE(outcome.err.find("the largest prompt that fits has "), std::string::npos) << outcome.err;
  std::vector<std::string> forced = huge;
  forced.push_back("--force");
  EXPECT_EQ(run_program("fastkv-run", forced).status, 0);
}

}  // namespace
}  // namespace fastkv::test
