// Tables of text with aligned columns.
#pragma once

#include <string>
#include <vector>

namespace fastkv::tools {

/// The first column is aligned left, the others right.
class Table {
 public:
  explicit Table(std::vector<std::string> header) : rows_{std::move(header)} {}
  void row(std::vector<std::string> cells) { rows_.push_back(std::move(cells)); }
  /// Lines with two spaces between columns and a rule below the header.
  std::string text() const;

 private:
  std::vector<std::vector<std::string>> rows_;
};

}  // namespace fastkv::tools
