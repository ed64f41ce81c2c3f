// Sizes of a cache.
#include "cache/kv_cache.hpp"

namespace fastkv {

std::size_t KvCache::bytes() const {
  std::size_t total = 0;
  for (const auto& layer : layers) total += layer->bytes();
  return total;
}

}  // namespace fastkv
