// Files whose lines are JSON objects, and the fields of these.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "core/json.hpp"
#include "fastkv/error.hpp"

namespace fastkv::tools {

/// What `work` returns; an Error that it throws goes on with "`where`: " before it.
template <class Work>
auto located(const std::string& where, const Work& work) {
  try {
    return work();
  } catch (const Error& error) {
    throw Error(error.code(), where + ": " + error.what());
  }
}

/// Calls `read` with each line's number, from 1, and its object; white lines are skipped; at most `limit` objects
/// (0: all). Throws Error io; bad_file for a line that is no JSON object and for a file without any ("no `what`"). An
/// Error that `read` throws goes on with "FILE: line N: " before it.
void read_jsonl(const std::string& path, const char* what, std::int64_t limit,
                const std::function<void(std::int64_t line, const Json& object)>& read);

/// A field that must be there. Throws Error bad_file.
const Json& field(const Json& object, const char* name);
/// A field of one kind. Throws Error bad_file, saying what was found.
const std::string& text_field(const Json& object, const char* name);
std::int64_t integer_field(const Json& object, const char* name);
std::vector<std::string> texts_field(const Json& object, const char* name);

}  // namespace fastkv::tools
