// Implements token_trie.hpp.
#include "text/token_trie.hpp"

namespace fastkv {

namespace {

std::uint64_t edge(std::uint32_t node, char byte) {
  return std::uint64_t{node} * 256 + static_cast<unsigned char>(byte);
}

}  // namespace

void TokenTrie::insert(std::string_view text, std::int32_t id) {
  starts_[static_cast<unsigned char>(text.front())] = true;
  std::uint32_t node = 0;
  for (const char byte : text) {
    const auto [it, added] = next_.try_emplace(edge(node, byte), static_cast<std::uint32_t>(tokens_.size()));
    if (added) tokens_.push_back(-1);
    node = it->second;
  }
  if (tokens_[node] < 0) tokens_[node] = id;
}

TokenTrie::Match TokenTrie::match(std::string_view text) const {
  if (text.empty() || !starts_[static_cast<unsigned char>(text.front())]) return {};
  Match longest;
  std::uint32_t node = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto it = next_.find(edge(node, text[i]));
    if (it == next_.end()) break;
    node = it->second;
    if (tokens_[node] >= 0) longest = {tokens_[node], i + 1};
  }
  return longest;
}

}  // namespace fastkv
