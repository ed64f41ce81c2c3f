// The command line before any tool: spellings, the environment, last one wins, what is refused and how.
#include "common/cli.hpp"

#include <gtest/gtest.h>

#include <cstdlib>
#include <random>

namespace fastkv::tools {
namespace {

enum class Mode { max, avg };

struct Parsed {
  std::string model, prompt;
  std::optional<int> threads_batch;
  double rate = 0.5;
  std::int64_t seed = -1;
  std::optional<bool> chat;
  std::optional<Mode> pooling;
  bool dry_run = false;
  std::vector<std::string> questions;

  void declare(CommandLine& command) {
    command.option("-m,--model", "FILE", model, "model");
    command.option("-p,--prompt", "TEXT", prompt, "prompt");
    command.option("-tb,--threads-batch", "N", threads_batch, "threads");
    command.option("--tsp-rate,~--tsp-share", "R", rate, "rate", Limits<double>{1e-9, 1, "must be in (0, 1]"});
    command.option("-s,--seed", "N", seed, "seed");
    command.flag("-cnv,--conversation,!-no-cnv,!--no-conversation", chat, "chat");
    command.flag("--dry-run", dry_run, "plan only");
    command.choice<std::optional<Mode>, Mode>(
        "--pooling", pooling, {{"max", Mode::max}, {"avg", Mode::avg}, {"~maxpool", Mode::max}}, "pooling");
    command.add_repeated("-q,--question", "TEXT", "question",
                         [this](const std::string& text) { questions.push_back(text); });
    command.refuse("--filter-layer", true, [](const std::string& name) { return name + " is for gemfilter"; });
  }
};

/// Parses `arguments` (without a program name) into a fresh Parsed.
Parsed parse(std::vector<const char*> arguments) {
  Parsed parsed;
  CommandLine command("tool", "[options]", "A tool.");
  parsed.declare(command);
  arguments.insert(arguments.begin(), "tool");
  EXPECT_FALSE(command.parse(static_cast<int>(arguments.size()), arguments.data()).has_value());
  return parsed;
}

std::string message(std::vector<const char*> arguments) {
  try {
    parse(std::move(arguments));
  } catch (const UsageError& error) {
    return error.what();
  }
  return "(accepted)";
}

TEST(Cli, SpellingsOfLlamaCpp) {
  EXPECT_EQ(parse({"-tb", "4"}).threads_batch, 4);
  EXPECT_EQ(parse({"--threads_batch", "4"}).threads_batch, 4);
  EXPECT_EQ(parse({"--threads-batch=4"}).threads_batch, 4);
  EXPECT_EQ(parse({"-tb=4"}).threads_batch, 4);
  EXPECT_EQ(parse({"--tsp_share", "0.25"}).rate, 0.25);
  EXPECT_EQ(parse({"-s", "-1"}).seed, -1);
  EXPECT_EQ(parse({"--seed=-7"}).seed, -7);
  EXPECT_EQ(parse({"-no-cnv"}).chat, false);
  EXPECT_EQ(parse({"-cnv"}).chat, true);
  EXPECT_EQ(parse({"--no-conversation=false"}).chat, true);
  EXPECT_FALSE(parse({}).chat.has_value());
  EXPECT_EQ(parse({"--pooling", "maxpool"}).pooling, Mode::max);
}

TEST(Cli, ValuesArriveByteForByte) {
  for (const char* text : {"", "-foo", "--model", "a=b", "[a, b]", "\"quoted\"", " spaces ", "two\nlines", "%%", "{}",
                           "\xc3\xa9", "--", "-", "a,b", "`x`"}) {
    EXPECT_EQ(parse({"-p", text}).prompt, text);
    EXPECT_EQ(parse({"--prompt", text}).prompt, text);
    EXPECT_EQ(parse({"-q", text, "-q", "second"}).questions, (std::vector<std::string>{text, "second"}));
  }
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  for (int round = 0; round < 200; ++round) {
    std::string text;
    for (int length = random() % 12; length > 0; --length) text += " -=[]{},\"'\\\n%#;@a1"[random() % 18];
    EXPECT_EQ(parse({"-p", text.c_str(), "-q", text.c_str()}).prompt, text);
    EXPECT_EQ(parse({"-q", text.c_str()}).questions, std::vector<std::string>{text});
  }
}

TEST(Cli, LastOneWins) {
  EXPECT_EQ(parse({"-tb", "4", "--threads-batch", "5"}).threads_batch, 5);
  EXPECT_EQ(parse({"-cnv", "-no-cnv"}).chat, false);
  EXPECT_EQ(parse({"-q", "a", "-q", "b"}).questions.size(), 2u);
}

TEST(Cli, EnvironmentBelowTheCommandLine) {
  setenv("FASTKV_ARG_TSP_RATE", "0.75", 1);
  setenv("FASTKV_ARG_DRY_RUN", "1", 1);
  EXPECT_EQ(parse({}).rate, 0.75);
  EXPECT_TRUE(parse({}).dry_run);
  EXPECT_EQ(parse({"--tsp-rate", "0.25"}).rate, 0.25);
  setenv("FASTKV_ARG_TSP_RATE", "7", 1);
  EXPECT_EQ(message({}), "FASTKV_ARG_TSP_RATE=7: must be in (0, 1]");
  unsetenv("FASTKV_ARG_TSP_RATE");
  unsetenv("FASTKV_ARG_DRY_RUN");
}

TEST(Cli, MistakesAreOneLine) {
  EXPECT_EQ(message({"-tb", "b"}), "--threads-batch b: expected an integer");
  EXPECT_EQ(message({"-tb", "4x"}), "--threads-batch 4x: expected an integer");
  EXPECT_EQ(message({"-tb", "99999999999"}), "--threads-batch 99999999999: too large");
  EXPECT_EQ(message({"--tsp-rate", "0"}), "--tsp-rate 0: must be in (0, 1]");
  EXPECT_EQ(message({"--tsp-rate", "nan"}), "--tsp-rate nan: must be in (0, 1]");
  EXPECT_EQ(message({"--tsp-rate", "x"}), "--tsp-rate x: expected a number");
  EXPECT_EQ(message({"--pooling", "min"}), "--pooling min: expected max or avg");
  EXPECT_EQ(message({"-m"}), "-m needs a value");
  EXPECT_EQ(message({"stray"}), "unexpected argument \"stray\"");
  EXPECT_EQ(message({"--filter_layer", "3"}), "--filter-layer is for gemfilter");
  EXPECT_EQ(message({"--dry-run=maybe"}), "--dry-run maybe: expected true or false");
}

TEST(Cli, UnknownOptions) {
  EXPECT_EQ(message({"--grammar", "x"}), "--grammar is a llama.cpp option that fastkv does not support");
  EXPECT_EQ(message({"-ngl", "99"}), "-ngl is a llama.cpp option that fastkv does not support");
  EXPECT_EQ(message({"--prompt_cache", "f"}), "--prompt-cache is a llama.cpp option that fastkv does not support");
  EXPECT_EQ(message({"--tsp-rat", "1"}), "unknown option --tsp-rat; did you mean --tsp-rate?");
  EXPECT_EQ(message({"--thread-batch", "1"}), "unknown option --thread-batch; did you mean --threads-batch?");
  EXPECT_EQ(message({"--conv"}), "unknown option --conv; did you mean --conversation?");
  EXPECT_EQ(message({"--frobnicate"}), "unknown option --frobnicate; see --help");
  EXPECT_EQ(message({"-Z"}), "unknown option -Z; see --help");
}

TEST(Cli, HelpListsWhatWorksAndNothingElse) {
  Parsed parsed;
  CommandLine command("tool", "[options]", "A tool.");
  command.group("Things");
  parsed.declare(command);
  const std::string help = command.help();
  EXPECT_NE(help.find("-tb, --threads-batch N"), std::string::npos) << help;
  EXPECT_NE(help.find("Things:"), std::string::npos);
  EXPECT_EQ(help.find("--filter-layer"), std::string::npos);
  EXPECT_EQ(help.find("--tsp-share"), std::string::npos);
  EXPECT_NE(help.find("max|avg"), std::string::npos);
}

}  // namespace
}  // namespace fastkv::tools
