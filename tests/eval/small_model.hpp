// A subcommand of fastkv-eval on the small model of the fixtures, and its results file.
#pragma once

#include <gtest/gtest.h>

#include <fstream>

#include "core/json.hpp"
#include "support/fixtures.hpp"
#include "support/process.hpp"

namespace fastkv::test {

class OnSmallModel : public ::testing::Test {
 protected:
  explicit OnSmallModel(std::string subcommand) : subcommand_(std::move(subcommand)) {}
  void SetUp() override { FASTKV_REQUIRE_FILE(model_); }

  /// On one thread: other work on the machine must not hold up barriers.
  Outcome run(const std::vector<std::string>& more) const {
    std::vector<std::string> arguments = {subcommand_, "-m", model_, "-c", "16384", "--compute", "f32", "-t", "1"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return run_program("fastkv-eval", arguments);
  }
  OrderedJson result(std::vector<std::string> more) const {
    more.insert(more.end(), {"-o", scratch_ / "out.json", "--overwrite"});
    const Outcome outcome = run(more);
    EXPECT_EQ(outcome.status, 0) << outcome.err;
    std::ifstream file(scratch_ / "out.json");
    return outcome.status == 0 ? OrderedJson::parse(file) : OrderedJson();
  }
  /// The last line on stderr, from the program's name on.
  std::string refusal(const std::vector<std::string>& arguments, int status) const {
    const Outcome outcome = run(arguments);
    EXPECT_EQ(outcome.status, status) << outcome.err;
    EXPECT_EQ(outcome.out, "");
    const std::size_t at = outcome.err.rfind("fastkv-eval: ");
    EXPECT_NE(at, std::string::npos) << outcome.err;
    return at == std::string::npos ? "" : outcome.err.substr(at);
  }

  const std::string model_ = (fixtures() / "models" / "stories260K-f32.gguf").string();
  const Scratch scratch_;

 private:
  const std::string subcommand_;
};

}  // namespace fastkv::test
