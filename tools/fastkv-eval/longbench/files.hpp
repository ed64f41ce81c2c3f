// LongBench's files: data/NAME.jsonl, config/dataset2prompt.json, config/dataset2maxlen.json.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/json.hpp"
#include "fastkv-eval/longbench/sets.hpp"

namespace fastkv::tools {

/// One line of a data set.
struct Record {
  std::int64_t line = 0;  ///< in the file, from 1
  std::string id;         ///< "_id"; empty: none
  std::string prompt;     ///< the set's template with the record's context and input
  std::vector<std::string> answers;
  std::vector<std::string> classes;  ///< "all_classes"; null: empty
  std::int64_t length = 0;           ///< in LongBench's words, not tokens
};

/// A folder of LongBench: data/ in it, config/ in it or, as in its repository, in LongBench/.
class LongBenchFiles {
 public:
  /// Reads the configuration. Throws Error io naming what was looked for, bad_file.
  explicit LongBenchFiles(const std::string& folder);

  std::string data_file(const DataSet& set) const;
  bool has(const DataSet& set) const;
  /// Tokens to generate for an answer. Throws Error bad_file.
  int max_tokens(const DataSet& set) const;
  /// The first `limit` records (0: all). Throws Error io; bad_file: "FILE: line N: what was expected, what was found".
  std::vector<Record> read(const DataSet& set, std::int64_t limit) const;

 private:
  std::string pattern(const DataSet& set) const;

  std::string folder_, config_folder_;
  Json prompts_, max_tokens_;
};

/// `pattern` with {context} and {input} filled in; {{ and }} stand for braces. Throws Error bad_file for other braces.
std::string fill_template(const std::string& pattern, const std::string& context, const std::string& input);

}  // namespace fastkv::tools
