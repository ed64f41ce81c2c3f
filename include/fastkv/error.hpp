// The one exception type the library throws.
#pragma once

#include <stdexcept>
#include <string>

namespace fastkv {

enum class ErrorCode {
  invalid_option,    ///< an option is out of range or conflicts with another: the caller's mistake (exit status 2)
  io,                ///< a file cannot be opened, read, written or mapped
  bad_file,          ///< a file's content is malformed: truncated, overflowing, missing keys, wrong shapes
  unsupported,       ///< well-formed but not something this library runs (architecture, tensor type, tokenizer)
  context_exceeded,  ///< the prompt does not fit the context
  bad_input,         ///< the prompt is empty, not UTF-8, or holds ids outside the vocabulary
  out_of_memory,     ///< the plan or an allocation exceeds what the machine or the cgroup has
  cancelled,         ///< the stop flag was raised
  internal,          ///< a bug in this library
};

/// Every failure of the library. `what()` is one line: what was expected, what was found and where.
class Error : public std::runtime_error {
 public:
  Error(ErrorCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  ErrorCode code() const noexcept { return code_; }

 private:
  ErrorCode code_;
};

}  // namespace fastkv
