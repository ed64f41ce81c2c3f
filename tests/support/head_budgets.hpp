// HeadKV's table of importances as a JSON file, for tests of the engine and the tools.
#pragma once

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

namespace fastkv::test {

/// Writes {"layer-head": [importance]} to a file of its own under the system's temporary folder; removed with the
/// object.
class HeadBudgets {
 public:
  HeadBudgets(int n_layer, int n_head, const std::vector<double>& importance) {
    static int count = 0;
    path_ = std::filesystem::temp_directory_path() /
            ("fastkv-heads-" + std::to_string(getpid()) + "-" + std::to_string(count++) + ".json");
    std::ofstream file(path_);
    file.precision(17);
    file << '{';
    for (int i = 0; i < n_layer * n_head; ++i)
      file << (i ? ", " : "") << '"' << i / n_head << '-' << i % n_head << "\": [" << importance[std::size_t(i)] << ']';
    file << '}';
  }
  ~HeadBudgets() { std::filesystem::remove(path_); }
  HeadBudgets(const HeadBudgets&) = delete;
  std::string path() const { return path_.string(); }

 private:
  std::filesystem::path path_;
};

}  // namespace fastkv::test
