// Merging through the heap against the definition: look at all pairs, merge the best, start again.
#include "text/merges.hpp"

#include <gtest/gtest.h>

#include <random>
#include <tuple>

namespace fastkv::test {

namespace {

using Symbols = std::vector<std::int32_t>;

Symbols merge_by_definition(const MergeTable& table, Symbols symbols) {
  while (true) {
    const MergeTable::Merge* best = nullptr;
    std::size_t at = 0;
    for (std::size_t i = 0; i + 1 < symbols.size(); ++i) {
      const MergeTable::Merge* merge = table.find(symbols[i], symbols[i + 1]);
      if (merge != nullptr && (best == nullptr || merge->rank < best->rank)) {
        best = merge;
        at = i;
      }
    }
    if (best == nullptr) return symbols;
    symbols[at] = best->symbol;
    symbols.erase(symbols.begin() + static_cast<std::ptrdiff_t>(at) + 1);
  }
}

Symbols merge_by_heap(const MergeTable& table, const Symbols& symbols, SymbolList& list) {
  list.reset(symbols.size());
  for (std::size_t i = 0; i < symbols.size(); ++i) list.append(i, i + 1, symbols[i]);
  list.merge(table);
  Symbols merged;
  std::size_t covered = 0;
  list.for_each([&](std::size_t begin, std::size_t end, std::int32_t symbol) {
    EXPECT_EQ(begin, covered);
    EXPECT_GT(end, begin);
    covered = end;
    merged.push_back(symbol);
  });
  EXPECT_EQ(covered, symbols.size());
  return merged;
}

TEST(Merges, HeapGivesWhatTheDefinitionGives) {
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  const auto below = [&](std::size_t n) { return static_cast<std::int32_t>(random() % n); };
  SymbolList list;  // one for all: what is left of a longer piece must not matter
  for (int round = 0; round < 400; ++round) {
    MergeTable table;
    std::int32_t count = 2 + below(3);
    const std::int32_t letters = count;
    const bool ties = round % 2 == 0;  // equal ranks, as equal scores give
    for (std::int32_t rank = 0; rank < 1 + below(40); ++rank) {
      const auto shown = static_cast<std::uint32_t>(ties ? below(4) : rank);
      table.insert(below(static_cast<std::size_t>(count)), below(static_cast<std::size_t>(count)), {shown, count});
      ++count;
    }
    for (const std::size_t length : {0, 1, 2, 3, 15, 16, 17, 64, 65}) {
      Symbols symbols(length);
      for (std::int32_t& symbol : symbols)
        symbol = below(20) == 0 ? kNoSymbol : below(static_cast<std::size_t>(letters));
      ASSERT_EQ(merge_by_heap(table, symbols, list), merge_by_definition(table, symbols));
    }
  }
}

TEST(Merges, TableKeepsTheBetterRankAndFindsAll) {
  MergeTable table;
  EXPECT_EQ(table.find(0, 0), nullptr);
  for (std::int32_t i = 0; i < 5000; ++i) table.insert(i, 3 * i, {static_cast<std::uint32_t>(i), i + 1});
  for (std::int32_t i = 0; i < 5000; ++i) {
    const MergeTable::Merge* merge = table.find(i, 3 * i);
    ASSERT_NE(merge, nullptr);
    EXPECT_EQ(merge->symbol, i + 1);
    EXPECT_EQ(table.find(i, 3 * i + 1), nullptr);
  }
  table.insert(7, 21, {9, 100});
  EXPECT_EQ(table.find(7, 21)->symbol, 8);
  table.insert(7, 21, {3, 100});
  EXPECT_EQ(table.find(7, 21)->symbol, 100);
  EXPECT_EQ(table.find(kNoSymbol, 0), nullptr);
  EXPECT_EQ(table.find(0, kNoSymbol), nullptr);
}

}  // namespace

}  // namespace fastkv::test
