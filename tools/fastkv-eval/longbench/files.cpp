// Reading of LongBench's files.
#include "fastkv-eval/longbench/files.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string_view>

#include "common/format.hpp"
#include "fastkv-eval/jsonl.hpp"
#include "fastkv/error.hpp"

namespace fastkv::tools {

namespace {

constexpr const char* kPrompts = "dataset2prompt.json";
constexpr const char* kMaxTokens = "dataset2maxlen.json";

Json read_config(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw Error(ErrorCode::io, "cannot open " + path + ": " + std::strerror(errno));
  Json json = Json::parse(file, nullptr, false);
  if (json.is_discarded()) throw Error(ErrorCode::bad_file, path + ": not JSON");
  if (!json.is_object()) throw Error(ErrorCode::bad_file, path + ": expected an object, found " + json.type_name());
  return json;
}

Record read_record(const DataSet& set, const std::string& pattern, const Json& object) {
  Record record;
  record.prompt = fill_template(pattern, text_field(object, "context"), text_field(object, "input"));
  record.answers = texts_field(object, "answers");
  record.length = integer_field(object, "length");
  if (!field(object, "all_classes").is_null()) record.classes = texts_field(object, "all_classes");
  if (object.contains("_id")) record.id = text_field(object, "_id");
  if (record.answers.empty()) throw Error(ErrorCode::bad_file, "\"answers\" is empty");
  if (set.metric == Metric::classification && record.classes.empty())
    throw Error(ErrorCode::bad_file, "\"all_classes\": expected the names of the classes, found none");
  if (set.metric) score(set, "", record.answers, record.classes);  // throws for answers of another form
  return record;
}

}  // namespace

LongBenchFiles::LongBenchFiles(const std::string& folder) : folder_(folder) {
  const std::filesystem::path root = folder;
  std::error_code none;
  if (!std::filesystem::is_directory(root / "data", none)) {
    throw Error(ErrorCode::io, folder +
                                   ": expected LongBench's files, data/*.jsonl and config/*.json; there is no folder " +
                                   (root / "data").string());
  }
  const std::filesystem::path beside = root / "config", inside = root / "LongBench" / "config";
  if (!std::filesystem::is_directory(beside, none) && !std::filesystem::is_directory(inside, none)) {
    throw Error(ErrorCode::io, folder + ": expected LongBench's " + kPrompts + " and " + kMaxTokens + " in " +
                                   beside.string() + " or " + inside.string() + "; there is neither folder");
  }
  config_folder_ = (std::filesystem::is_directory(beside, none) ? beside : inside).string();
  prompts_ = read_config(config_folder_ + "/" + kPrompts);
  max_tokens_ = read_config(config_folder_ + "/" + kMaxTokens);
}

std::string LongBenchFiles::data_file(const DataSet& set) const {
  return (std::filesystem::path(folder_) / "data" / (set.title() + ".jsonl")).string();
}

bool LongBenchFiles::has(const DataSet& set) const {
  std::error_code none;
  return std::filesystem::exists(data_file(set), none);
}

int LongBenchFiles::max_tokens(const DataSet& set) const {
  return located(config_folder_ + "/" + kMaxTokens, [&] {
    const std::int64_t tokens = integer_field(max_tokens_, set.name.c_str());
    if (tokens < 1 || tokens > 1 << 20) {
      throw Error(ErrorCode::bad_file, format("\"%s\": expected a number of tokens, found %lld", set.name.c_str(),
                                              static_cast<long long>(tokens)));
    }
    return static_cast<int>(tokens);
  });
}

std::string LongBenchFiles::pattern(const DataSet& set) const {
  const std::string path = config_folder_ + "/" + kPrompts;
  const std::string pattern = located(path, [&] { return text_field(prompts_, set.name.c_str()); });
  located(path + ": \"" + set.name + "\"", [&] { return fill_template(pattern, "", ""); });
  return pattern;
}

std::vector<Record> LongBenchFiles::read(const DataSet& set, std::int64_t limit) const {
  const std::string pattern = this->pattern(set);
  std::vector<Record> records;
  read_jsonl(data_file(set), "records", limit, [&](std::int64_t line, const Json& object) {
    records.push_back(read_record(set, pattern, object));
    records.back().line = line;
  });
  return records;
}

std::string fill_template(const std::string& pattern, const std::string& context, const std::string& input) {
  constexpr std::string_view kContext = "{context}", kInput = "{input}";
  std::string filled;
  for (std::string_view rest = pattern; !rest.empty();) {
    std::size_t taken = 1;
    if (rest.starts_with(kContext)) {
      filled += context;
      taken = kContext.size();
    } else if (rest.starts_with(kInput)) {
      filled += input;
      taken = kInput.size();
    } else if (rest.starts_with("{{") || rest.starts_with("}}")) {
      filled += rest[0];
      taken = 2;
    } else if (rest[0] == '{' || rest[0] == '}') {
      const std::size_t end = rest[0] == '{' ? std::min(rest.find('}'), rest.size() - 1) : 0;
      throw Error(ErrorCode::bad_file, "expected {context}, {input} or doubled braces, found \"" +
                                           std::string(rest.substr(0, end + 1)) + "\"");
    } else {
      filled += rest[0];
    }
    rest.remove_prefix(taken);
  }
  return filled;
}

}  // namespace fastkv::tools
