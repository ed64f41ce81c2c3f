// Parses the header, the metadata and the tensor directory of GGUF files.
#include "model/gguf.hpp"

#include <algorithm>
#include <bit>
#include <utility>

#include "core/check.hpp"
#include "core/dtype.hpp"
#include "model/gguf_cursor.hpp"

namespace fastkv {
namespace {

static_assert(std::endian::native == std::endian::little, "GGUF values are read in place");

// Caps far above real files (a 405B model has 1,138 tensors, the largest vocabularies 300K entries): they bound the
// work and the memory a hostile header can ask for.
constexpr std::uint64_t kMaxKeys = 1u << 16;
constexpr std::uint64_t kMaxTensors = 1u << 16;
constexpr std::uint64_t kMaxArray = 1u << 24;
constexpr std::size_t kMaxKeyBytes = 65535;  // of the format's definition
constexpr std::size_t kMaxTensorNameBytes = 64;
constexpr std::uint64_t kDefaultAlignment = 32;
constexpr std::uint64_t kMaxAlignment = 1u << 20;

std::uint64_t align_up(std::uint64_t n, std::uint64_t alignment) { return (n + alignment - 1) / alignment * alignment; }

}  // namespace

std::size_t value_bytes(GgufType type) {
  switch (type) {
    case GgufType::u8:
    case GgufType::i8:
    case GgufType::boolean:
      return 1;
    case GgufType::u16:
    case GgufType::i16:
      return 2;
    case GgufType::u32:
    case GgufType::i32:
    case GgufType::f32:
      return 4;
    case GgufType::u64:
    case GgufType::i64:
    case GgufType::f64:
      return 8;
    case GgufType::string:
    case GgufType::array:
      break;
  }
  return 0;
}

std::string quoted(std::string_view text) {
  constexpr std::size_t kShown = 80;
  constexpr char kHex[] = "0123456789abcdef";
  std::string out = "'";
  for (const char c : text.substr(0, kShown)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x20 && byte < 0x7f) {
      out += c;
    } else {
      out += {'\\', 'x', kHex[byte >> 4], kHex[byte & 15]};
    }
  }
  if (text.size() > kShown) out += "...";
  return out + "'";
}

GgufFile GgufFile::open(const std::string& path, FileAccess access) {
  GgufFile file;
  file.path_ = path;
  file.mapping_.emplace(path, access);
  file.bytes_ = file.mapping_->bytes();
  file.parse();
  return file;
}

GgufFile GgufFile::from_memory(std::span<const std::byte> bytes, std::string name) {
  GgufFile file;
  file.path_ = std::move(name);
  file.bytes_ = bytes;
  file.parse();
  return file;
}

void GgufFile::parse() {
  GgufCursor cursor(bytes_, path_);
  const auto magic = cursor.read<std::array<char, 4>>("the magic 'GGUF'");
  const std::string_view found(magic.data(), magic.size());
  check(found == "GGUF", ErrorCode::bad_file, path_, ": byte 0: expected the magic 'GGUF', found ", quoted(found));
  const auto version = cursor.read<std::uint32_t>("version");
  const auto swapped = __builtin_bswap32(version);
  check(swapped == 0 || swapped > 0xffff, ErrorCode::unsupported, path_, ": big-endian GGUF (version ", swapped,
        ") is not supported; expected little-endian");
  check(version == 2 || version == 3, ErrorCode::unsupported, path_, ": GGUF version ", version,
        " is not supported; supported: 2, 3");
  const auto n_tensors = cursor.read<std::uint64_t>("tensor count");
  check(n_tensors <= kMaxTensors, ErrorCode::bad_file, path_, ": byte 8: expected at most ", kMaxTensors,
        " tensors, found ", n_tensors);
  const auto n_keys = cursor.read<std::uint64_t>("key count");
  check(n_keys <= kMaxKeys, ErrorCode::bad_file, path_, ": byte 16: expected at most ", kMaxKeys, " keys, found ",
        n_keys);
  parse_metadata(cursor, n_keys);
  check_split();
  parse_directory(cursor, n_tensors);
}

void GgufFile::parse_metadata(GgufCursor& cursor, std::uint64_t count) {
  for (std::uint64_t i = 0; i < count; ++i) {
    const auto entry = cursor.offset();
    const auto key = cursor.read_string("key");
    check(!key.empty() && key.size() <= kMaxKeyBytes, ErrorCode::bad_file, path_, ": byte ", entry,
          ": expected a key of 1 to ", kMaxKeyBytes, " bytes, found ", key.size());
    Value value;
    value.type = cursor.read<GgufType>("value type");
    if (value.type == GgufType::array) {
      value.array = true;
      value.type = cursor.read<GgufType>("array element type");
      value.count = cursor.read<std::uint64_t>("array length");
      check(value.type != GgufType::array, ErrorCode::bad_file, path_, ": byte ", entry, ": key ", quoted(key),
            ": expected an array of plain values, found an array of arrays");
      check(value.count <= kMaxArray, ErrorCode::bad_file, path_, ": byte ", entry, ": key ", quoted(key),
            ": expected at most ", kMaxArray, " array elements, found ", value.count);
    }
    const auto bytes = value_bytes(value.type);
    check(bytes > 0 || value.type == GgufType::string, ErrorCode::bad_file, path_, ": byte ", entry, ": key ",
          quoted(key), ": expected a value type from 0 to 12, found ", static_cast<std::uint32_t>(value.type));
    value.offset = cursor.offset();
    if (value.type == GgufType::string) {
      for (std::uint64_t k = 0; k < value.count; ++k) cursor.read_string("a string value");
    } else {
      cursor.skip(value.count * bytes, "a value");  // count ≤ 2^24, bytes ≤ 8
    }
    check(metadata_.emplace(key, value).second, ErrorCode::bad_file, path_, ": byte ", entry, ": key ", quoted(key),
          ": expected once, found a second time");
  }
}

void GgufFile::check_split() const {
  const auto parts = find_u32("split.count").value_or(1);
  check(parts <= 1, ErrorCode::unsupported, path_, ": one of ", parts,
        " parts of a split model; not supported, merge them first (llama-gguf-split --merge)");
}

void GgufFile::parse_directory(GgufCursor& cursor, std::uint64_t count) {
  const std::uint64_t alignment = find_u32("general.alignment").value_or(kDefaultAlignment);
  check(alignment >= 8 && alignment <= kMaxAlignment && std::has_single_bit(alignment), ErrorCode::bad_file, path_,
        ": key 'general.alignment': expected a power of two from 8 to ", kMaxAlignment, ", found ", alignment);
  std::vector<std::uint64_t> offsets;  // relative to the data, whose start is known after the last entry
  for (std::uint64_t i = 0; i < count; ++i) {
    GgufTensor tensor;
    tensor.entry_offset = cursor.offset();
    tensor.name = cursor.read_string("tensor name");
    const auto where = concat(path_, ": byte ", tensor.entry_offset, ": tensor ", quoted(tensor.name), ": expected ");
    check(!tensor.name.empty() && tensor.name.size() <= kMaxTensorNameBytes, ErrorCode::bad_file, where,
          "a name of 1 to ", kMaxTensorNameBytes, " bytes, found ", tensor.name.size());
    tensor.n_dims = cursor.read<std::uint32_t>("tensor dimension count");
    check(tensor.n_dims >= 1 && tensor.n_dims <= tensor.dims.size(), ErrorCode::bad_file, where, "1 to ",
          tensor.dims.size(), " dimensions, found ", tensor.n_dims);
    std::uint64_t weights = 1;
    for (std::uint32_t d = 0; d < tensor.n_dims; ++d) {
      tensor.dims[d] = cursor.read<std::uint64_t>("tensor dimension");
      check(tensor.dims[d] >= 1 && checked_mul(weights, tensor.dims[d], weights) && weights <= std::uint64_t(INT64_MAX),
            ErrorCode::bad_file, where, "dimensions whose product is from 1 to 2^63-1, found dimension ", d, " = ",
            tensor.dims[d]);
    }
    tensor.ggml_type = cursor.read<std::uint32_t>("tensor type");
    const auto offset = cursor.read<std::uint64_t>("tensor offset");
    check(offset % alignment == 0, ErrorCode::bad_file, where, "an offset that is a multiple of ", alignment,
          ", found ", offset);
    check(tensor_index_.emplace(tensor.name, tensors_.size()).second, ErrorCode::bad_file, where,
          "a name used once, found it a second time");
    offsets.push_back(offset);
    tensors_.push_back(tensor);
  }

  const auto data_start = align_up(cursor.offset(), alignment);  // the cursor is inside the file: no overflow
  for (std::size_t i = 0; i < tensors_.size(); ++i) {
    auto& tensor = tensors_[i];
    const auto where = concat(path_, ": byte ", tensor.entry_offset, ": tensor ", quoted(tensor.name), ": expected ");
    const auto type = dtype_from_ggml(tensor.ggml_type);
    std::uint64_t bytes = 0;
    if (type) {
      const auto& block = info(*type);
      check(tensor.dims[0] % block.block_weights == 0, ErrorCode::bad_file, where, "rows of a multiple of ",
            block.block_weights, " weights for type ", block.name, ", found ", tensor.dims[0]);
      std::uint64_t weights = 1;
      for (const auto dim : tensor.dims) weights *= dim;  // checked above
      check(checked_mul(weights / block.block_weights, block.block_bytes, bytes), ErrorCode::bad_file, where,
            "a size below 2^64 bytes, found ", weights, " weights");
    }
    std::uint64_t begin = 0, end = 0;
    const bool fits =
        checked_add(data_start, offsets[i], begin) && checked_add(begin, bytes, end) && end <= bytes_.size();
    check(fits, ErrorCode::bad_file, where, bytes, " bytes at offset ", offsets[i],
          " of the data, which starts at byte ", data_start, ", found a file of ", bytes_.size(), " bytes");
    tensor.data = bytes_.subspan(begin, bytes);
  }
  check_layout(alignment);
}

/// No tensor overlaps another, and nothing but padding follows the last one.
void GgufFile::check_layout(std::uint64_t alignment) const {
  std::vector<const GgufTensor*> order;
  for (const auto& tensor : tensors_) {
    if (tensor.data.empty()) return;  // a type of unknown size: neither can be told
    order.push_back(&tensor);
  }
  if (order.empty()) return;
  std::sort(order.begin(), order.end(), [](const auto* a, const auto* b) { return a->data.data() < b->data.data(); });
  for (std::size_t i = 1; i < order.size(); ++i) {
    const auto* end = order[i - 1]->data.data() + order[i - 1]->data.size();
    check(end <= order[i]->data.data(), ErrorCode::bad_file, path_, ": byte ", order[i]->entry_offset, ": tensor ",
          quoted(order[i]->name), ": expected bytes of its own, found an overlap with ", quoted(order[i - 1]->name));
  }
  const auto end = std::uint64_t(order.back()->data.data() + order.back()->data.size() - bytes_.data());
  check(bytes_.size() <= align_up(end, alignment), ErrorCode::bad_file, path_, ": expected the file to end at byte ",
        align_up(end, alignment), " after tensor ", quoted(order.back()->name), ", found ", bytes_.size(), " bytes");
}

const GgufTensor* GgufFile::find_tensor(std::string_view name) const {
  const auto found = tensor_index_.find(name);
  return found == tensor_index_.end() ? nullptr : &tensors_[found->second];
}

void GgufFile::release(std::span<const std::byte> range) const noexcept {
  if (mapping_) mapping_->advise_dontneed(range);
}

}  // namespace fastkv
