// The files of the project as lines of text, for tests that read the code instead of running it.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <set>
#include <string>
#include <vector>

namespace fastkv::test {

struct SourceFile {
  std::string path;                ///< from the project's root, with /
  std::vector<std::string> lines;  ///< as they are
  std::vector<std::string> code;   ///< the same lines without comments and without the contents of string literals
};

namespace detail {

/// Blanks comments and string contents; `in_comment` carries a block comment over lines. Raw strings over several lines
/// do not occur in the folders read here.
inline std::string strip(const std::string& line, bool& in_comment) {
  std::string out;
  for (std::size_t i = 0; i < line.size(); ++i) {
    if (in_comment) {
      if (line.compare(i, 2, "*/") == 0) {
        in_comment = false;
        ++i;
      }
    } else if (line.compare(i, 2, "//") == 0) {
      break;
    } else if (line.compare(i, 2, "/*") == 0) {
      in_comment = true;
      ++i;
    } else if (line[i] == '"' || (line[i] == '\'' && (i == 0 || !isalnum(static_cast<unsigned char>(line[i - 1]))))) {
      const char quote = line[i];
      out += quote;
      for (++i; i < line.size() && line[i] != quote; ++i)
        if (line[i] == '\\') ++i;
      out += quote;
    } else {
      out += line[i];
    }
  }
  return out;
}

}  // namespace detail

/// C++ and CUDA files under `folders`, sorted by path.
inline std::vector<SourceFile> source_files(const std::vector<std::string>& folders) {
  static const std::set<std::string> kExtensions = {".cpp", ".hpp", ".h", ".cu", ".cuh"};
  const std::filesystem::path root = FASTKV_SOURCE_DIR;
  std::vector<SourceFile> out;
  for (const std::string& folder : folders) {
    if (!std::filesystem::exists(root / folder)) continue;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(root / folder)) {
      const std::string extension = entry.path().extension().string();
      if (!entry.is_regular_file() || !kExtensions.count(extension)) continue;
      SourceFile file;
      file.path = std::filesystem::relative(entry.path(), root).generic_string();
      std::ifstream in(entry.path());
      bool in_comment = false;
      for (std::string line; std::getline(in, line);) {
        file.lines.push_back(line);
        file.code.push_back(detail::strip(line, in_comment));
      }
      out.push_back(std::move(file));
    }
  }
  std::sort(out.begin(), out.end(), [](const SourceFile& a, const SourceFile& b) { return a.path < b.path; });
  return out;
}

inline bool starts_with(const std::string& text, const std::string& prefix) { return text.rfind(prefix, 0) == 0; }

}  // namespace fastkv::test
