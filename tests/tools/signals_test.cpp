// Ctrl-C and kill at every stage: half a second by the specification; the test prints what it took and allows ten times
// that, because the machines that run it are shared.
#include "common/signals.hpp"

#include <gtest/gtest.h>

#include "support/fixtures.hpp"
#include "support/process.hpp"

namespace fastkv::test {
namespace {

constexpr double kAllowedSeconds = 5;

class Signals : public ::testing::Test {
 protected:
  void SetUp() override { FASTKV_REQUIRE_FILE(model_); }

  /// Sends `number` and checks status, time and that the timings were printed.
  void stop(Process& process, int number, bool timings) const {
    const auto start = Clock::now();
    process.send(number);
    const Outcome outcome = process.wait();
    const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
    std::printf("stopped in %.3f s\n", seconds);
    EXPECT_LT(seconds, kAllowedSeconds);
    EXPECT_FALSE(outcome.killed);
    EXPECT_EQ(outcome.status, 128 + number) << outcome.err;
    EXPECT_EQ(outcome.err.find("prompt eval time") != std::string::npos, timings) << outcome.err;
  }

  /// The path of a prompt that takes many seconds.
  std::string long_prompt() const {
    std::string ids("[1");
    for (int i = 1; i < 100000; ++i) ids += "," + std::to_string(3 + i % 500);
    return scratch_.write("long.json", ids + "]");
  }

  const std::string model_ = (fixtures() / "models" / "stories260K-f32.gguf").string();
  const Scratch scratch_;
};

TEST_F(Signals, InThePrompt) {
  for (int number : {SIGINT, SIGTERM}) {
    Process process("fastkv-run", {"-m", model_, "--tokens", long_prompt(), "-c", "200000", "--method", "full", "-n",
                                   "1", "--progress", "json"});
    ASSERT_TRUE(process.wait_until([&] { return process.err().find("\"prefill\"") != std::string::npos; }))
        << process.wait().err;
    stop(process, number, true);
    EXPECT_EQ(process.out(), "");
    EXPECT_NE(process.err().find("stopped in the prompt at "), std::string::npos);
    EXPECT_EQ(process.err().find("TTFT"), std::string::npos) << "there was no first token";
  }
}

TEST_F(Signals, WhileGenerating) {
  for (int number : {SIGINT, SIGTERM}) {
    Process process("fastkv-run",
                    {"-m", model_, "-p", "Once upon a time", "-n", "1000000", "-c", "1048576", "--ignore-eos"});
    ASSERT_TRUE(process.wait_until([&] { return process.out().size() > 40; })) << process.wait().err;
    stop(process, number, true);
    EXPECT_NE(process.err().find("stopped while generating"), std::string::npos);
    EXPECT_NE(process.err().find("TTFT"), std::string::npos);
  }
}

TEST_F(Signals, WhileReadingStdin) {
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  fcntl(ends[1], F_SETFD, FD_CLOEXEC);  // only this test holds the end that never closes
  ProcessOptions options;
  options.stdin_fd = ends[0];
  {
    Process process("fastkv-run", {"-m", model_, "-f", "-"}, options);
    std::this_thread::sleep_for(std::chrono::milliseconds(500));
    stop(process, SIGINT, false);
  }
  close(ends[0]);
  close(ends[1]);
}

TEST(SignalHandlers, TheSecondSignalKills) {
  const pid_t pid = fork();
  if (pid == 0) {
    signal(SIGINT, SIG_DFL);
    tools::install_signal_handlers();
    const std::atomic<bool>& stop = tools::stop_flag();
    raise(SIGINT);
    if (!stop || tools::stop_exit_status() != 130) _exit(1);
    raise(SIGINT);
    _exit(2);
  }
  int status = 0;
  waitpid(pid, &status, 0);
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGINT) << status;
}

TEST(SignalHandlers, BeforeTheRunASignalEndsTheProgramAtOnce) {
  const pid_t pid = fork();
  if (pid == 0) {
    signal(SIGTERM, SIG_DFL);
    tools::install_signal_handlers();
    raise(SIGTERM);
    _exit(2);
  }
  int status = 0;
  waitpid(pid, &status, 0);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 143) << status;
}

}  // namespace
}  // namespace fastkv::test
