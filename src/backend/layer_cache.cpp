// Rows that decode adds to a layer's cache and takes back, on whatever device they lie.
#include <algorithm>

#include "backend/backend.hpp"
#include "core/check.hpp"

namespace fastkv {

void LayerCache::append(std::int64_t rows) {
  if (appended_ + rows > reserve_) allocate(std::max(appended_ + rows, 2 * reserve_));
  appended_ += rows;
}

void LayerCache::truncate(std::int64_t appended) {
  check(appended >= 0 && appended <= appended_, ErrorCode::internal, "truncate to ", appended, " of ", appended_,
        " rows");
  appended_ = appended;
}

}  // namespace fastkv
