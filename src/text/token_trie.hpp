// The tokens that are found in text by their spelling (control and user-defined tokens), longest match first.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace fastkv {

class TokenTrie {
 public:
  struct Match {
    std::int32_t id = -1;    ///< -1: no token
    std::size_t length = 0;  ///< bytes
  };

  /// Adds a token; the first of two with the same spelling stays. `text` is not empty.
  void insert(std::string_view text, std::int32_t id);

  bool empty() const { return tokens_.size() <= 1; }

  /// The longest token at the start of `text`. At most as many steps as the longest token has bytes.
  Match match(std::string_view text) const;

 private:
  std::array<bool, 256> starts_{};                         // first bytes of tokens: most positions end here
  std::unordered_map<std::uint64_t, std::uint32_t> next_;  // node·256 + byte → node
  std::vector<std::int32_t> tokens_{-1};  // [nodes] id of the token that ends here, or -1; node 0 = root
};

}  // namespace fastkv
