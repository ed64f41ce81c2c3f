// Tables of text with aligned columns.
#include "common/table.hpp"

#include <algorithm>

namespace fastkv::tools {

namespace {

/// Characters on the screen: bytes that do not go on with a UTF-8 character.
std::size_t width(const std::string& text) {
  return static_cast<std::size_t>(std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

}  // namespace

std::string Table::text() const {
  std::vector<std::size_t> widths(rows_.front().size());
  for (const auto& row : rows_) {
    for (std::size_t c = 0; c < row.size(); ++c) widths[c] = std::max(widths[c], width(row[c]));
  }
  std::string text;
  for (std::size_t r = 0; r < rows_.size(); ++r) {
    std::string line, rule;
    for (std::size_t c = 0; c < rows_[r].size(); ++c) {
      const std::string& cell = rows_[r][c];
      const std::string padding(widths[c] - width(cell), ' ');
      if (c > 0) {
        line.append("  ").append(padding).append(cell);
        rule.append("  ");
      } else {
        line.append(cell).append(padding);
      }
      rule.append(widths[c], '-');
    }
    line.erase(line.find_last_not_of(' ') + 1);
    text.append(line).append("\n");
    if (r == 0) text.append(rule).append("\n");
  }
  return text;
}

}  // namespace fastkv::tools
