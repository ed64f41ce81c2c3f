// The results file of an evaluation: settings, finished examples, scores; one JSON object that a later run can go on
// with.
#pragma once

#include <chrono>
#include <map>
#include <string>

#include "core/json.hpp"

namespace fastkv::tools {

/// {"tool", "version", "complete", "settings", "model", "machine", "scores": [], "examples": []}; examples
/// are flat objects, each under a "key" of its own. The file is always whole: it is replaced, never written into.
class Results {
 public:
  enum class Existing { refuse, resume, overwrite };

  /// `path` empty: nothing is written. An existing file is refused (UsageError), taken up or replaced. Taken up, it
  /// must be of the same tool and its settings must equal `settings`; throws Error bad_file, or UsageError naming the
  /// first setting that differs.
  Results(std::string path, Existing existing, const std::string& tool, OrderedJson settings);

  /// The finished example of that key; null: none. Stays valid.
  const OrderedJson* find(const std::string& key) const;
  /// Adds {"key": key, …example}. The file is written at most every two seconds, and so rarely that writing takes a
  /// twentieth of the time at most; save() writes the rest. Throws Error io.
  const OrderedJson& add(const std::string& key, const OrderedJson& example);
  /// Writes what is not yet in the file. Throws Error io naming how much of it is.
  void save();
  /// Sets "scores" and "complete" and writes.
  void finish(OrderedJson scores);

  /// A part beside the settings ("model", "machine"), not compared.
  void set(const std::string& name, OrderedJson value) { header_[name] = std::move(value); }
  bool resumed() const { return resumed_ > 0; }

 private:
  using Clock = std::chrono::steady_clock;
  void read(OrderedJson& settings, const std::string& tool);
  void write(bool complete);

  std::string path_;
  OrderedJson header_, scores_ = OrderedJson::array();
  std::map<std::string, OrderedJson> examples_;
  std::vector<const OrderedJson*> order_;  // as they were finished
  std::size_t resumed_ = 0, written_ = 0;  // examples
  Clock::time_point last_write_ = Clock::now();
  Clock::duration write_time_{};
};

}  // namespace fastkv::tools
