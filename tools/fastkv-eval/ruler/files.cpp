// Reading and writing RULER's JSONL.
#include "fastkv-eval/ruler/files.hpp"

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <map>
#include <set>
#include <system_error>

#include "core/json.hpp"
#include "fastkv-eval/jsonl.hpp"
#include "fastkv/error.hpp"
#include "fastkv/report.hpp"

namespace fastkv::tools {

namespace {

namespace fs = std::filesystem;

/// Whether `name` has the task's name in it, with no letter or digit beside it ("ruler4096_vt.head20").
bool names_task(const std::string& name, std::string_view task) {
  const auto joins = [&](std::size_t i) {
    return i < name.size() && std::isalnum(static_cast<unsigned char>(name[i]));
  };
  for (std::size_t at = name.find(task); at != std::string::npos; at = name.find(task, at + 1)) {
    if (!(at > 0 && joins(at - 1)) && !joins(at + task.size())) return true;
  }
  return false;
}

const RulerTask* task_of(const fs::path& path) {
  for (const fs::path& part : {path.filename(), path.parent_path().filename()}) {
    for (const RulerTask& task : ruler_tasks()) {
      if (names_task(part.string(), task.name)) return &task;
    }
  }
  return nullptr;
}

std::int64_t length_of(const fs::path& path) {
  for (fs::path folder = path.parent_path(); folder.has_filename(); folder = folder.parent_path()) {
    const std::string name = folder.filename().string();
    if (name.size() < 10 && std::all_of(name.begin(), name.end(), [](unsigned char c) { return std::isdigit(c); }))
      return std::stoll(name);
  }
  return 0;
}

/// Files of `path`, sorted: itself, or all below it that are named after a task.
std::vector<fs::path> files_of(const std::string& path) {
  std::error_code error;
  const bool folder = fs::is_directory(path, error);
  std::vector<fs::path> files;
  if (!folder) {
    files.emplace_back(path);
  } else {
    fs::recursive_directory_iterator entry(path, error);
    for (; !error && entry != fs::recursive_directory_iterator(); entry.increment(error)) {
      if (entry->path().extension() == ".jsonl" && task_of(entry->path())) files.push_back(entry->path());
    }
  }
  if (error && folder) throw Error(ErrorCode::io, "cannot read " + path + ": " + error.message());
  std::sort(files.begin(), files.end());
  const std::string expected = ": expected a task of RULER (niah_single_1, vt, qa_1, …) in the name of ";
  if (files.empty())
    throw Error(ErrorCode::bad_file, path + expected + "a .jsonl file below it or of the file's folder");
  if (!task_of(files[0])) throw Error(ErrorCode::bad_file, path + expected + "the file or its folder");
  return files;
}

RulerSample sample_of(const Json& object) {
  RulerSample sample;
  sample.input = text_field(object, "input");
  sample.references = texts_field(object, "outputs");
  if (sample.references.empty()) throw Error(ErrorCode::bad_file, "\"outputs\" is empty");
  if (object.contains("index")) sample.index = integer_field(object, "index");
  if (object.contains("answer_prefix")) sample.opening = text_field(object, "answer_prefix");
  return sample;
}

}  // namespace

std::vector<RulerLine> read_ruler(const std::vector<std::string>& paths, const std::vector<std::string>& tasks,
                                  std::int64_t limit) {
  std::vector<RulerLine> lines;
  std::set<fs::path> seen;
  for (const std::string& path : paths) {
    for (const fs::path& file : files_of(path)) {
      const std::string task(task_of(file)->name);
      if (!seen.insert(file).second)
        throw Error(ErrorCode::invalid_option, "--data " + file.string() + ": is read twice");
      if (!tasks.empty() && std::find(tasks.begin(), tasks.end(), task) == tasks.end()) continue;
      read_jsonl(file.string(), "questions", limit, [&](std::int64_t line, const Json& object) {
        lines.push_back({file.string() + ": line " + std::to_string(line), sample_of(object)});
        lines.back().sample.task = task;
        lines.back().sample.length = length_of(file);
      });
    }
  }
  return lines;
}

void write_ruler(const std::string& folder, const std::vector<RulerSample>& samples) {
  std::map<fs::path, std::string> files;
  for (const RulerSample& sample : samples) {
    const OrderedJson line = {{"index", sample.index},
                              {"input", sample.input},
                              {"outputs", sample.references},
                              {"length", sample.length},
                              {"answer_prefix", sample.opening}};
    files[fs::path(folder) / std::to_string(sample.length) / (sample.task + ".jsonl")] += dump(line) + "\n";
  }
  for (const auto& [path, text] : files) {
    std::error_code error;
    fs::create_directories(path.parent_path(), error);
    if (error) throw Error(ErrorCode::io, "cannot make " + path.parent_path().string() + ": " + error.message());
    write_file(path.string(), text);
  }
}

}  // namespace fastkv::tools
