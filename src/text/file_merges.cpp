// Implements file_merges.hpp.
#include "text/file_merges.hpp"

#include "core/check.hpp"

namespace fastkv {

MergeTable read_file_merges(const Vocabulary& vocabulary) {
  MergeTable table;
  const VocabData& data = vocabulary.data();
  for (std::size_t rank = 0; rank < data.merges.size(); ++rank) {
    const std::string_view merge = data.merges[rank];
    const std::size_t space = merge.find(' ');
    const bool two = space != std::string_view::npos && space > 0 && space + 1 < merge.size() &&
                     merge.find(' ', space + 1) == std::string_view::npos;
    check(two, ErrorCode::bad_file, data.source, ": merge ", rank, " is '", merge,
          "', expected two tokens and a space");
    const std::string left = vocabulary.to_bytes(merge.substr(0, space));
    const std::string right = vocabulary.to_bytes(merge.substr(space + 1));
    const std::int32_t left_id = vocabulary.find(left), right_id = vocabulary.find(right);
    const std::int32_t merged_id = vocabulary.find(left + right);
    check(left_id >= 0 && right_id >= 0 && merged_id >= 0, ErrorCode::bad_file, data.source, ": merge ", rank, " '",
          merge, "' has a part or a result outside the vocabulary");
    table.insert(left_id, right_id, {static_cast<std::uint32_t>(rank), merged_id});
  }
  return table;
}

}  // namespace fastkv
