// Implements merges.hpp.
#include "text/merges.hpp"

#include <algorithm>
#include <functional>

namespace fastkv {

namespace {

std::uint64_t pair_key(std::int32_t left, std::int32_t right) {
  return (std::uint64_t{static_cast<std::uint32_t>(left)} << 32) | static_cast<std::uint32_t>(right);
}

}  // namespace

std::size_t MergeTable::slot_of(std::uint64_t key) const {
  const std::size_t mask = slots_.size() - 1;
  std::uint64_t hash = key * 0x9E3779B97F4A7C15U;
  hash ^= hash >> 32;
  std::size_t at = hash & mask;
  while (slots_[at].key != key && slots_[at].key != kEmpty) at = (at + 1) & mask;
  return at;
}

void MergeTable::grow() {
  std::vector<Slot> old(std::max<std::size_t>(16, slots_.size() * 2));
  old.swap(slots_);
  for (const Slot& slot : old) {
    if (slot.key != kEmpty) slots_[slot_of(slot.key)] = slot;
  }
}

void MergeTable::insert(std::int32_t left, std::int32_t right, Merge merge) {
  if (count_ * 2 >= slots_.size()) grow();
  const std::uint64_t key = pair_key(left, right);
  Slot& slot = slots_[slot_of(key)];
  if (slot.key == kEmpty) {
    slot = {key, merge};
    ++count_;
  } else if (merge.rank < slot.merge.rank) {
    slot.merge = merge;
  }
}

const MergeTable::Merge* MergeTable::find(std::int32_t left, std::int32_t right) const {
  if (left < 0 || right < 0 || slots_.empty()) return nullptr;
  const Slot& slot = slots_[slot_of(pair_key(left, right))];
  return slot.key == kEmpty ? nullptr : &slot.merge;
}

void SymbolList::reset(std::size_t bytes) {
  if (nodes_.size() < bytes) nodes_.resize(bytes);
  size_ = last_ = 0;
}

void SymbolList::append(std::size_t begin, std::size_t end, std::int32_t symbol) {
  nodes_[begin] = {symbol, kNoRank, last_, static_cast<std::uint32_t>(end)};
  last_ = static_cast<std::uint32_t>(begin);
  size_ = static_cast<std::uint32_t>(end);
}

std::uint32_t SymbolList::rank_at(std::uint32_t at, const MergeTable& table) const {
  const std::uint32_t next = nodes_[at].next;
  if (next == size_) return kNoRank;
  const MergeTable::Merge* merge = table.find(nodes_[at].symbol, nodes_[next].symbol);
  return merge == nullptr ? kNoRank : merge->rank;
}

void SymbolList::refresh(std::uint32_t at, const MergeTable& table) {
  nodes_[at].rank = rank_at(at, table);
  if (nodes_[at].rank == kNoRank) return;
  heap_.push_back((std::uint64_t{nodes_[at].rank} << 32) | at);
  std::push_heap(heap_.begin(), heap_.end(), std::greater<>());
}

void SymbolList::merge(const MergeTable& table) {
  heap_.clear();
  for (std::uint32_t at = 0; at < size_; at = nodes_[at].next) {
    nodes_[at].rank = rank_at(at, table);
    if (nodes_[at].rank != kNoRank) heap_.push_back((std::uint64_t{nodes_[at].rank} << 32) | at);
  }
  std::make_heap(heap_.begin(), heap_.end(), std::greater<>());
  while (!heap_.empty()) {
    const std::uint64_t best = heap_.front();
    std::pop_heap(heap_.begin(), heap_.end(), std::greater<>());
    heap_.pop_back();
    const auto at = static_cast<std::uint32_t>(best);
    Node& node = nodes_[at];
    if (node.rank != best >> 32) continue;  // stale: this pair has changed since it was queued
    Node& right = nodes_[node.next];
    node.symbol = table.find(node.symbol, right.symbol)->symbol;
    node.next = right.next;
    right.rank = kNoRank;
    if (node.next != size_) nodes_[node.next].previous = at;
    refresh(at, table);
    if (at != 0) refresh(node.previous, table);
  }
}

}  // namespace fastkv
