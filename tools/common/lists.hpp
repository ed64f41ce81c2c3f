// Values of options that take lists: "512,1024", "128-1024*2", "128-1024+128", as llama-bench writes them.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace fastkv::tools {

/// The parts of "a,b,c"; an empty part is a UsageError.
std::vector<std::string> split_list(const std::string& text);

/// Numbers and ranges: "first-last" (step 1), "first-last+step", "first-last*factor", lists of these. Throws
/// UsageError, also for numbers below `least` and for ranges of more than 100,000 values.
std::vector<std::int64_t> parse_counts(const std::string& text, std::int64_t least = 0);

/// As parse_counts(), but a value that comes twice is a UsageError too.
std::vector<std::int64_t> parse_distinct_counts(const std::string& text, std::int64_t least = 0);

/// Shares in (0, 1]: "0.1,0.25". Throws UsageError.
std::vector<double> parse_rates(const std::string& text);

/// "512,128": tokens of the prompt, tokens generated. Throws UsageError.
std::pair<std::int64_t, std::int64_t> parse_pair(const std::string& text);

}  // namespace fastkv::tools
