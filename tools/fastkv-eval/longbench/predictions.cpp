// Writing of LongBench's predictions.
#include "fastkv-eval/longbench/predictions.hpp"

#include <filesystem>

#include "common/output.hpp"
#include "fastkv/error.hpp"
#include "fastkv/report.hpp"

namespace fastkv::tools {

std::string predictions_file(const std::string& root, const std::string& model, const DataSet& set) {
  return root + (set.e ? "/pred_e/" : "/pred/") + model + "/" + set.name + ".jsonl";
}

void make_folders(const std::string& path) {
  const std::filesystem::path folder = std::filesystem::path(path).parent_path();
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) throw Error(ErrorCode::io, "cannot make the folder " + folder.string() + ": " + error.message());
  check_writable(path);
}

void write_predictions(const std::string& path, const std::vector<Record>& records,
                       const std::vector<std::string>& answers) {
  std::string lines;
  for (std::size_t i = 0; i < records.size(); ++i) {
    const OrderedJson line = {
        {"pred", answers.at(i)},
        {"answers", records[i].answers},
        {"all_classes", records[i].classes.empty() ? OrderedJson(nullptr) : OrderedJson(records[i].classes)},
        {"length", records[i].length}};
    lines += dump(line) + "\n";
  }
  write_file(path, lines);
}

}  // namespace fastkv::tools
