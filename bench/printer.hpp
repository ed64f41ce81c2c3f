// Records as csv, json, jsonl or an md table, one at a time as they come.
#pragma once

#include <cstdio>
#include <functional>
#include <memory>
#include <vector>

#include "bench/arguments.hpp"
#include "core/json.hpp"

namespace fastkv::bench {

class Printer {
 public:
  virtual ~Printer() = default;
  virtual void begin() {}
  virtual void print(const OrderedJson& record) = 0;
  virtual void end() {}
};

/// `arguments` says which columns of the md table have more than one value or not the default's. Null for none.
std::unique_ptr<Printer> make_printer(Format format, std::FILE* out, const Arguments& arguments);

/// The printers of -o and -oe.
class Output {
 public:
  /// `on_stdout` false: stdout is left to a table of the caller's own.
  Output(const Arguments& arguments, bool on_stdout = true);
  void print(const OrderedJson& record);
  /// Opens the formats, runs `body`, closes them; also when a signal ends it, so that what was measured stays
  /// well-formed.
  void during(const std::function<void()>& body);

 private:
  void end();
  std::vector<std::unique_ptr<Printer>> printers_;
};

/// "92.10 MiB", "134.52 M", "8.03 B", as llama-bench writes them.
std::string size_text(double bytes);
std::string params_text(double params);

/// The test's name from a record's n_prompt, n_gen and n_depth; records of llama-bench too.
std::string test_name(const OrderedJson& record);

/// Writes and flushes; Error io when that fails.
void write_text(std::FILE* out, const std::string& text);

}  // namespace fastkv::bench
