// JSON for the whole library: the only file that includes the JSON library.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace fastkv {

using Json = nlohmann::json;
using OrderedJson = nlohmann::ordered_json;  ///< keeps keys in the order they were written

/// One line of JSON; bytes that are not UTF-8 become U+FFFD instead of an exception.
template <class J>
std::string dump(const J& json, int indent = -1) {
  return json.dump(indent, ' ', false, J::error_handler_t::replace);
}

}  // namespace fastkv
