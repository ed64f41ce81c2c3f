// Metadata keys under the prefix of architecture `llama`, range-checked.
#pragma once

#include <algorithm>
#include <optional>
#include <string>
#include <string_view>

#include "core/check.hpp"
#include "model/gguf.hpp"

namespace fastkv {

class LlamaKeys {
 public:
  explicit LlamaKeys(const GgufFile& file) : file_(file) {}

  const GgufFile& file() const { return file_; }
  std::string key(std::string_view name) const { return "llama." + std::string(name); }
  bool has(std::string_view name) const { return file_.has(key(name)); }
  /// The start of a message about the key: "FILE: key 'llama.x': ".
  std::string where(std::string_view name) const { return concat(file_.path(), ": key '", key(name), "': "); }

  /// A required integer from 1 to `max`.
  std::uint32_t count(std::string_view name, std::uint32_t max) const {
    return in_range(name, file_.get_u32(key(name)), max);
  }

  /// A number that real files give once or as an array with one entry per layer: from 1 to `max`, and the same for all
  /// layers (Error unsupported otherwise). nullopt: absent and not required.
  std::optional<std::uint32_t> uniform(std::string_view name, int n_layer, std::uint32_t max,
                                       bool required = true) const {
    if (!file_.is_array(key(name))) {
      if (!required && !has(name)) return std::nullopt;
      return count(name, max);
    }
    const auto values = *file_.find_integers(key(name));
    check(values.size() == std::size_t(n_layer), ErrorCode::bad_file, where(name), "expected one value per layer, ",
          n_layer, ", found ", values.size());
    const auto [low, high] = std::minmax_element(values.begin(), values.end());
    check(*low == *high, ErrorCode::unsupported, where(name), "values that differ by layer are not supported, found ",
          *low, " and ", *high);
    return in_range(name, *low, max);
  }

 private:
  std::uint32_t in_range(std::string_view name, std::int64_t value, std::uint32_t max) const {
    check(value >= 1 && value <= std::int64_t(max), ErrorCode::bad_file, where(name), "expected an integer from 1 to ",
          max, ", found ", value);
    return std::uint32_t(value);
  }

  const GgufFile& file_;
};

}  // namespace fastkv
