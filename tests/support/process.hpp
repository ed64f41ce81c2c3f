// Programs run as processes: arguments in, exit status, stdout and stderr out, signals on the way.
#pragma once

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace fastkv::test {

using Clock = std::chrono::steady_clock;

/// What a file holds; nothing if there is none.
inline std::string file_bytes(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

struct Outcome {
  int status = -1;  ///< exit status; 128 + n when killed by signal n, as a shell says it
  bool killed = false;
  std::string out, err;
};

struct ProcessOptions {
  std::string input;  ///< on stdin
  std::map<std::string, std::string> environment;
  std::string stdout_path;  ///< instead of capturing
  int stdin_fd = -1;        ///< instead of `input`
};

/// A program of build/bin, started at once. stdout and stderr go to files, so nothing can block.
class Process {
 public:
  Process(const std::string& program, const std::vector<std::string>& arguments, const ProcessOptions& options = {}) {
    static int count = 0;
    folder_ = std::filesystem::temp_directory_path() /
              ("fastkv-process-" + std::to_string(getpid()) + "-" + std::to_string(count++));
    std::filesystem::create_directories(folder_);
    std::ofstream(folder_ / "in", std::ios::binary) << options.input;
    const std::string path = std::string(FASTKV_BINARY_DIR) + "/bin/" + program;
    pid_ = fork();
    if (pid_ < 0) throw std::runtime_error("fork failed");
    if (pid_ > 0) return;
    for (int number : {SIGINT, SIGTERM, SIGPIPE}) signal(number, SIG_DFL);  // background shells ignore SIGINT
    const auto redirect = [](int to, const std::string& file, int flags) {
      const int fd = open(file.c_str(), flags, 0600);
      if (fd < 0 || dup2(fd, to) < 0) _exit(126);
    };
    if (options.stdin_fd >= 0) {
      dup2(options.stdin_fd, 0);
    } else {
      redirect(0, folder_ / "in", O_RDONLY);
    }
    redirect(1, options.stdout_path.empty() ? (folder_ / "out").string() : options.stdout_path,
             O_WRONLY | O_CREAT | O_TRUNC);
    redirect(2, folder_ / "err", O_WRONLY | O_CREAT | O_TRUNC);
    for (const auto& [name, value] : options.environment) setenv(name.c_str(), value.c_str(), 1);
    std::vector<char*> argv{const_cast<char*>(path.c_str())};
    for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
    argv.push_back(nullptr);
    execv(path.c_str(), argv.data());
    _exit(127);
  }

  ~Process() {
    if (!waited_) {
      kill(pid_, SIGKILL);
      waitpid(pid_, nullptr, 0);
    }
    std::filesystem::remove_all(folder_);
  }
  Process(const Process&) = delete;

  void send(int number) const { kill(pid_, number); }
  std::string out() const { return read("out"); }
  std::string err() const { return read("err"); }

  /// Waits until `condition` holds; false if the program ends or `limit` passes first.
  template <class F>
  bool wait_until(F condition, std::chrono::seconds limit = std::chrono::seconds(120)) {
    for (const auto start = Clock::now(); Clock::now() - start < limit;) {
      if (condition()) return true;
      if (!waited_ && waitpid(pid_, &raw_status_, WNOHANG) == pid_) waited_ = true;
      if (waited_) return condition();
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    return false;
  }

  Outcome wait() {
    if (!waited_) waitpid(pid_, &raw_status_, 0);
    waited_ = true;
    const bool killed = WIFSIGNALED(raw_status_);
    return {killed ? 128 + WTERMSIG(raw_status_) : WEXITSTATUS(raw_status_), killed, out(), err()};
  }

 private:
  std::string read(const char* name) const {
    std::ifstream file(folder_ / name, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }

  std::filesystem::path folder_;
  pid_t pid_ = -1;
  int raw_status_ = 0;
  bool waited_ = false;
};

inline Outcome run_program(const std::string& program, const std::vector<std::string>& arguments,
                           const ProcessOptions& options = {}) {
  return Process(program, arguments, options).wait();
}

/// A folder that is gone after the test.
class Scratch {
 public:
  Scratch() {
    static int count = 0;
    path_ = std::filesystem::temp_directory_path() /
            ("fastkv-scratch-" + std::to_string(getpid()) + "-" + std::to_string(count++));
    std::filesystem::create_directories(path_);
  }
  ~Scratch() { std::filesystem::remove_all(path_); }
  std::string operator/(const std::string& name) const { return (path_ / name).string(); }
  std::string write(const std::string& name, const std::string& bytes) const {
    std::ofstream(path_ / name, std::ios::binary) << bytes;
    return *this / name;
  }

 private:
  std::filesystem::path path_;
};

}  // namespace fastkv::test
