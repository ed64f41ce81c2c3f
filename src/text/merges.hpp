// Byte-pair merging: the table of merges, and the loop that applies them best first.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

namespace fastkv {

inline constexpr std::int32_t kNoSymbol = -1;  ///< text that is part of no merge

/// (left symbol, right symbol) → rank of the merge (lower is better) and the symbol it makes. Symbols are token ids, or
/// numbers the caller gives to characters outside the vocabulary.
class MergeTable {
 public:
  struct Merge {
    std::uint32_t rank;
    std::int32_t symbol;
  };

  /// Keeps the better rank when the pair is known already. `left`, `right` ≥ 0, rank < kNoRank.
  void insert(std::int32_t left, std::int32_t right, Merge merge);

  /// The merge of a pair, or nullptr; either side may be kNoSymbol.
  const Merge* find(std::int32_t left, std::int32_t right) const;

 private:
  struct Slot {
    std::uint64_t key = kEmpty;
    Merge merge{};
  };
  static constexpr std::uint64_t kEmpty = std::numeric_limits<std::uint64_t>::max();

  std::size_t slot_of(std::uint64_t key) const;
  void grow();

  std::vector<Slot> slots_;  // open addressing, linear probing, a power of two, at most half full
  std::size_t count_ = 0;
};

/// The symbols of one piece of text as a doubly linked list; the place of a symbol is the offset of its first byte.
/// Reused from piece to piece to save allocations.
class SymbolList {
 public:
  /// Empties the list for a piece of `bytes` < 2³² bytes.
  void reset(std::size_t bytes);
  /// Appends the symbol of bytes [begin, end); `begin` is the end of the symbol before it.
  void append(std::size_t begin, std::size_t end, std::int32_t symbol);

  /// Repeatedly merges the adjacent pair of lowest rank, the leftmost of equals, until none is left.
  /// O(n log n) time for any text, through a heap of candidates.
  void merge(const MergeTable& table);

  /// Calls visit(begin, end, symbol) for the symbols from left to right.
  template <class Visit>
  void for_each(Visit&& visit) const {
    for (std::size_t at = 0; at < size_; at = nodes_[at].next)
      visit(at, std::size_t{nodes_[at].next}, nodes_[at].symbol);
  }

 private:
  struct Node {
    std::int32_t symbol;
    std::uint32_t rank;  // of the merge with the next node; kNoRank: none, or the node was merged away
    std::uint32_t previous, next;
  };
  static constexpr std::uint32_t kNoRank = std::numeric_limits<std::uint32_t>::max();

  std::uint32_t rank_at(std::uint32_t at, const MergeTable& table) const;
  void refresh(std::uint32_t at, const MergeTable& table);

  std::vector<Node> nodes_;          // [bytes of the piece]; only starts of symbols are used
  std::vector<std::uint64_t> heap_;  // rank·2³² + place: the smallest is the next merge, unless it is stale
  std::uint32_t size_ = 0;           // bytes
  std::uint32_t last_ = 0;           // place of the last symbol
};

}  // namespace fastkv
