// Means of scores with their standard errors.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "core/json.hpp"

namespace fastkv::tools {

/// Mean of n values and its standard error, s / √n with s over n − 1; of a single value there is none.
struct Mean {
  double mean = 0;
  std::optional<double> error;
};

Mean mean_of(const std::vector<double>& values);

/// {"mean", "standard_error": number or null}.
OrderedJson json_of(const Mean& m);
/// "0.123 ± 0.045".
std::string text_of(const Mean& m, int digits = 3);

/// The numbers of a field of examples (true: 1), of those that have it.
std::vector<double> column(const std::vector<OrderedJson>& examples, const char* field);

/// The value below which the share `q` of the values lies, interpolated between neighbours; of none: 0.
double quantile(std::vector<double> values, double q);

}  // namespace fastkv::tools
