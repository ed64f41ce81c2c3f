// Predictions in LongBench's own files, for its scorer.
#pragma once

#include <string>
#include <vector>

#include "core/json.hpp"
#include "fastkv-eval/longbench/files.hpp"

namespace fastkv::tools {

/// The folders that LongBench's scorer reads when it is started in `root`: pred/`model`, of LongBench-E pred_e/`model`;
/// and in it one file per set, named without "_e".
std::string predictions_file(const std::string& root, const std::string& model, const DataSet& set);

/// Makes the folders of a file, before the work that it is to hold. Throws Error io if it could not be written.
void make_folders(const std::string& path);

/// Writes lines {"pred", "answers", "all_classes", "length"}: `answers[i]` is the prediction for `records[i]`. A file
/// that is there is replaced whole. Throws Error io.
void write_predictions(const std::string& path, const std::vector<Record>& records,
                       const std::vector<std::string>& answers);

}  // namespace fastkv::tools
