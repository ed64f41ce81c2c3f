// LongBench's data sets: how each is asked and scored.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "fastkv-eval/metrics.hpp"

namespace fastkv::tools {

struct DataSet {
  std::string name;              ///< "qasper", also in the configuration files
  std::optional<Metric> metric;  ///< none: Chinese, whose words its scorer has segmented; not scored here
  bool chat = true;              ///< asked as a turn of the chat template; else plain text to go on with
  bool first_line = false;       ///< only the prediction's first line is scored
  bool in_e = false;             ///< LongBench-E has a set of this name, of even lengths
  bool e = false;                ///< it is that one: its file is NAME_e.jsonl, its scores are by length

  /// Name of its file, and in lists: "qasper" or "qasper_e".
  std::string title() const { return e ? name + "_e" : name; }
};

/// A choice of sets. `named`: each was named, so each must be there; else those that are found are taken.
struct DataSets {
  std::vector<DataSet> sets;
  bool named = false;
};

/// "qasper,trec_e", "all" (the 21 sets), "e" (the 13 of LongBench-E) or "" (the 16 in English and code). Throws
/// UsageError, naming the nearest name.
DataSets parse_data_sets(const std::string& list);

/// LongBench-E's classes of length, by a record's "length": "0-4k", "4-8k", "8k+".
std::string length_class(std::int64_t length);

/// The score of a prediction, 0 to 1: its best against any of the answers. The set has a metric.
double score(const DataSet& set, const std::string& prediction, const std::vector<std::string>& answers,
             const std::vector<std::string>& classes);

}  // namespace fastkv::tools
