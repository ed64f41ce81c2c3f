// Reading and writing of results files.
#include "fastkv-eval/results.hpp"

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "common/cli.hpp"
#include "common/format.hpp"
#include "common/output.hpp"
#include "fastkv/engine.hpp"
#include "fastkv/report.hpp"

namespace fastkv::tools {

namespace {

constexpr auto kWriteEvery = std::chrono::seconds(2);
constexpr int kWriteShare = 20;

std::string shown(const OrderedJson& settings, const std::string& name) {
  return settings.contains(name) ? dump(settings[name]).substr(0, 200) : "none";
}

/// Throws for the first setting that is not the same. Methods may come and go, not change.
void check_same(const std::string& path, const OrderedJson& before, const OrderedJson& now, bool whole = true) {
  for (const auto* side : {&now, &before}) {
    for (const auto& [name, value] : side->items()) {
      const bool both = before.contains(name) && now.contains(name);
      if (!both && !whole) continue;
      if (both && name == "methods" && whole) {
        check_same(path, before[name], now[name], false);
      } else if (!both || before[name] != now[name]) {
        throw UsageError(format("%s was made with other settings: \"%s\" was %s, now %s", path.c_str(), name.c_str(),
                                shown(before, name).c_str(), shown(now, name).c_str()));
      }
    }
  }
}

}  // namespace

Results::Results(std::string path, Existing existing, const std::string& tool, OrderedJson settings)
    : path_(std::move(path)) {
  header_["tool"] = tool;
  const std::string version = version_text();
  header_["version"] = version.substr(0, version.find('\n'));
  check_writable(path_);
  std::error_code none;
  if (std::filesystem::is_regular_file(path_, none) && existing != Existing::overwrite) {
    const bool empty = std::filesystem::file_size(path_, none) == 0;
    if (!empty && existing == Existing::refuse) {
      throw UsageError(path_ + " exists: --resume goes on with it, --overwrite replaces it");
    }
    if (!empty) read(settings, tool);
  }
  header_["settings"] = std::move(settings);
}

void Results::read(OrderedJson& settings, const std::string& tool) {
  std::ifstream file(path_, std::ios::binary);
  if (!file) throw Error(ErrorCode::io, "cannot open " + path_ + ": " + std::strerror(errno));
  const OrderedJson json = OrderedJson::parse(file, nullptr, false);
  const auto reject = [&](const std::string& what) {
    throw Error(ErrorCode::bad_file, path_ + ": expected a results file of " + tool + ", found " + what);
  };
  if (json.is_discarded() || !json.is_object()) reject("no JSON object");
  if (!json.contains("tool") || json["tool"] != tool) reject(shown(json, "tool"));
  if (!json.contains("settings") || !json["settings"].is_object()) reject("no \"settings\"");
  if (!json.contains("examples") || !json["examples"].is_array()) reject("no \"examples\"");
  check_same(path_, json["settings"], settings);
  if (json["settings"].contains("methods")) {
    for (const auto& [method, options] : json["settings"]["methods"].items()) settings["methods"][method] = options;
  }
  for (const char* part : {"model", "machine"}) {
    if (json.contains(part)) header_[part] = json[part];
  }
  for (const OrderedJson& example : json["examples"]) {
    if (!example.is_object() || !example.contains("key") || !example["key"].is_string())
      reject("an example without \"key\"");
    const auto [place, fresh] = examples_.emplace(example["key"].get<std::string>(), example);
    if (fresh) order_.push_back(&place->second);
  }
  resumed_ = written_ = order_.size();
}

const OrderedJson* Results::find(const std::string& key) const {
  const auto found = examples_.find(key);
  return found == examples_.end() ? nullptr : &found->second;
}

const OrderedJson& Results::add(const std::string& key, const OrderedJson& example) {
  OrderedJson keyed = {{"key", key}};
  keyed.update(example);
  const auto [place, fresh] = examples_.emplace(key, std::move(keyed));
  if (!fresh) throw Error(ErrorCode::internal, "example " + key + " is there twice");
  order_.push_back(&place->second);
  const Clock::duration since = Clock::now() - last_write_;
  if (since >= kWriteEvery && since >= kWriteShare * write_time_) save();
  return place->second;
}

void Results::save() {
  if (written_ < order_.size()) write(false);
}

void Results::finish(OrderedJson scores) {
  scores_ = std::move(scores);
  write(true);
}

void Results::write(bool complete) {
  if (path_.empty()) return;
  const Clock::time_point start = Clock::now();
  OrderedJson json;
  for (const char* part : {"tool", "version"}) json[part] = header_[part];
  json["complete"] = complete;
  for (const char* part : {"settings", "model", "machine"}) {
    if (header_.contains(part)) json[part] = header_[part];
  }
  json["scores"] = scores_;
  OrderedJson& examples = json["examples"] = OrderedJson::array();
  for (const OrderedJson* example : order_) examples.push_back(*example);
  try {
    write_file(path_, dump(json, 1) + "\n");
  } catch (const Error& error) {
    throw Error(error.code(), format("%s; %zu of %zu finished examples are in it: make room, then go on with --resume",
                                     error.what(), written_, order_.size()));
  }
  written_ = order_.size();
  last_write_ = Clock::now();
  write_time_ = last_write_ - start;
}

}  // namespace fastkv::tools
