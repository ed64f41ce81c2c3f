// The rules of indices that every device follows: who sees whom, edges of pooling, ties, order of gathers.
//
// constexpr, so that they compile for a GPU as they are, and so that tests of them need none.
#pragma once

#include <cstdint>

namespace fastkv {

// ---- attention -----------------------------------------------------------------------------------------------------

/// Keys that the row of original index `row` sees: itself and all before it, whatever rows are computed beside it.
constexpr std::int64_t visible_keys(std::int64_t row) { return row + 1; }

/// The key/value head that query head h of `heads` reads, or the head of a selection that h's rows come from: heads are
/// shared by consecutive query heads.
constexpr int shared_head(int h, int heads, int shared) { return int(std::int64_t(h) * shared / heads); }

// ---- scores --------------------------------------------------------------------------------------------------------

/// Keys that scoring row `a` of the last `rows` sees, of n; the last `causal_rows` of them are causal, earlier ones see
/// every key; −1: all are (spec/methods.md 0.2, 2.5).
constexpr std::int64_t seen_keys(std::int64_t n, std::int64_t rows, std::int64_t causal_rows, std::int64_t a) {
  const bool causal = causal_rows < 0 || a >= rows - causal_rows;
  return causal ? visible_keys(n - rows + a) : n;
}

/// λ_a: from 1 (the first of `rows`) to `last_weight` (the last), linearly; 1 if there is one row (2.7).
constexpr float row_weight(std::int64_t rows, double last_weight, std::int64_t a) {
  return rows == 1 ? 1.0f : float(1 + (last_weight - 1) * double(a) / double(rows - 1));
}

/// Rows [begin, end) of n.
struct RowRange {
  std::int64_t begin, end;
};

/// The scores that pooled score j takes part of: j − after .. j + before, cut at the ends (0.3).
constexpr RowRange pooled_range(std::int64_t n, std::int64_t before, std::int64_t after, std::int64_t j) {
  return {j > after ? j - after : 0, n - j > before + 1 ? j + before + 1 : n};
}

// ---- top-k ---------------------------------------------------------------------------------------------------------

/// A float32 score's bits as an integer that falls as the score rises; −0 equals 0, NaN (a broken model) comes last.
constexpr std::uint32_t falling_rank(std::uint32_t bits) {
  if ((bits & 0x7fffffffu) > 0x7f800000u) return 0xffffffffu;
  if (bits == 0x80000000u) bits = 0;
  return ~(bits >> 31 ? ~bits : bits | 0x80000000u);
}

/// Best first: the higher score, and among equals the lower row (0.4).
constexpr std::uint64_t score_order(std::uint32_t bits, std::int64_t row) {
  return std::uint64_t(falling_rank(bits)) << 32 | std::uint64_t(row);
}

/// Rows that compete for a place: all but the first `first` and the last `last`, which are kept whatever they score.
constexpr RowRange competing_rows(std::int64_t n, std::int64_t first, std::int64_t last) { return {first, n - last}; }

/// Row i of `first + last` rows taken from the two ends of n, ascending.
constexpr std::int64_t end_row(std::int64_t n, std::int64_t first, std::int64_t last, std::int64_t i) {
  return i < first ? i : n - (first + last) + i;
}

}  // namespace fastkv
