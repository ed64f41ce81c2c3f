// RULER's files: questions read from them, generated ones written in the same layout.
#pragma once

#include <string>
#include <vector>

#include "fastkv-eval/ruler/tasks.hpp"

namespace fastkv::tools {

/// A question and the place it was read from ("FILE: line 3").
struct RulerLine {
  std::string where;
  RulerSample sample;
};

/// Reads lines {"input", "outputs", "index", "answer_prefix"}, the last two optional, of the files in `paths` and, of
/// folders in it, all *.jsonl below them that are named after a task; other fields are not used. The task is the one
/// in the name of the file or its folder ("vt/validation.jsonl"), the length the nearest folder whose name is a number
/// ("4096/vt.jsonl"). At most `limit` lines of each file (0: all), and only `tasks` (empty: all). Throws Error io,
/// bad_file.
std::vector<RulerLine> read_ruler(const std::vector<std::string>& paths, const std::vector<std::string>& tasks,
                                  std::int64_t limit);

/// Writes FOLDER/LENGTH/TASK.jsonl. Throws Error io.
void write_ruler(const std::string& folder, const std::vector<RulerSample>& samples);

}  // namespace fastkv::tools
