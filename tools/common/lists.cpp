// Lists and ranges of numbers.
#include "common/lists.hpp"

#include <algorithm>

#include "common/cli.hpp"
#include "common/format.hpp"

namespace fastkv::tools {

namespace {

constexpr std::size_t kMostValues = 100000;
constexpr std::int64_t kLargest = std::int64_t{1} << 40;

std::int64_t parse_count(const std::string& text, std::int64_t least) {
  const std::int64_t value = parse_integer(text);
  if (value < least || value > kLargest) {
    throw UsageError(format("must be %lld or more", static_cast<long long>(least)));
  }
  return value;
}

}  // namespace

std::vector<std::string> split_list(const std::string& text) {
  std::vector<std::string> parts;
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find(',', begin), text.size());
    parts.push_back(text.substr(begin, end - begin));
    if (parts.back().empty()) throw UsageError("an entry of the list is empty");
    begin = end + 1;
  }
  return parts;
}

std::vector<std::int64_t> parse_counts(const std::string& text, std::int64_t least) {
  std::vector<std::int64_t> values;
  for (const std::string& part : split_list(text)) {
    const std::size_t dash = part.find('-', 1);
    const std::int64_t first = parse_count(part.substr(0, dash), least);
    values.push_back(first);
    if (dash == std::string::npos) continue;
    const std::size_t sign = part.find_first_of("+*", dash);
    const std::int64_t last = parse_count(part.substr(dash + 1, sign - dash - 1), least);
    if (last < first) throw UsageError("expected FIRST-LAST with FIRST <= LAST");
    const bool times = sign != std::string::npos && part[sign] == '*';
    const std::int64_t step = sign == std::string::npos ? 1 : parse_integer(part.substr(sign + 1));
    if (step < 1 || (times && (step < 2 || first < 1))) throw UsageError("the range never ends");
    for (std::int64_t value = first; (value = times ? value * step : value + step) <= last;) {
      if (values.size() >= kMostValues) throw UsageError("too many values");
      values.push_back(value);
    }
  }
  return values;
}

std::vector<std::int64_t> parse_distinct_counts(const std::string& text, std::int64_t least) {
  std::vector<std::int64_t> values = parse_counts(text, least), sorted = values;
  std::sort(sorted.begin(), sorted.end());
  const auto twice = std::adjacent_find(sorted.begin(), sorted.end());
  if (twice != sorted.end()) throw UsageError(format("%lld is named twice", static_cast<long long>(*twice)));
  return values;
}

std::vector<double> parse_rates(const std::string& text) {
  std::vector<double> rates;
  for (const std::string& part : split_list(text)) {
    rates.push_back(parse_number(part));
    if (!(rates.back() > 0 && rates.back() <= 1)) throw UsageError("must be in (0, 1]");
  }
  return rates;
}

std::pair<std::int64_t, std::int64_t> parse_pair(const std::string& text) {
  const std::vector<std::string> parts = split_list(text);
  if (parts.size() != 2) throw UsageError("expected PP,TG");
  return {parse_count(parts[0], 1), parse_count(parts[1], 1)};
}

}  // namespace fastkv::tools
