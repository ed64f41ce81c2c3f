// Writes GGUF files block by block.
#include "fastkv/gguf_writer.hpp"

#include <algorithm>
#include <type_traits>
#include <utility>

#include "atomic_file.hpp"
#include "core/check.hpp"
#include "core/dtype.hpp"
#include "core/quant_blocks.hpp"

namespace fastkv {
namespace {

constexpr std::uint64_t kAlignment = 32;  // the format's default, so that no key has to say it
constexpr std::size_t kBufferBytes = 1u << 20;
constexpr std::uint32_t kString = 8, kArray = 9;

/// GGUF's number of the value type T.
template <class T>
constexpr std::uint32_t value_type() {
  if constexpr (std::is_same_v<T, bool>) return 7;
  if constexpr (std::is_same_v<T, float>) return 6;
  if constexpr (std::is_same_v<T, double>) return 12;
  constexpr std::uint32_t kSigned = std::is_signed_v<T> ? 1 : 0;
  if constexpr (sizeof(T) == 1) return 0 + kSigned;
  if constexpr (sizeof(T) == 2) return 2 + kSigned;
  if constexpr (sizeof(T) == 4) return 4 + kSigned;
  return 10 + kSigned;
}

template <class T>
void append(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof value);
}

DType known_type(std::string_view type) {
  const auto found = dtype_from_name(type);
  if (!found) {
    std::string names;
    for (const auto& name : tensor_types()) names += (names.empty() ? "" : ", ") + name;
    fail(ErrorCode::invalid_option, "unknown tensor type '", type, "'; supported: ", names);
  }
  return *found;
}

}  // namespace

std::vector<std::string> tensor_types() {
  std::vector<std::string> names;
  for (const auto& type : kDTypes) names.emplace_back(type.name);
  return names;
}

std::size_t tensor_block_weights(std::string_view type) { return info(known_type(type)).block_weights; }

std::size_t tensor_bytes(std::string_view type, std::uint64_t n) {
  const auto& block = info(known_type(type));
  check(n % block.block_weights == 0, ErrorCode::invalid_option, "tensor type ", block.name,
        ": expected a multiple of ", block.block_weights, " weights, found ", n);
  return n / block.block_weights * block.block_bytes;
}

void quantize_tensor(std::string_view type, const float* x, std::uint64_t n, void* dst) {
  tensor_bytes(type, n);  // checks
  quantize_row(known_type(type), x, dst, n);
}

GgufWriter::GgufWriter(std::string path) : path_(std::move(path)), file_(std::make_unique<AtomicFile>(path_)) {}

GgufWriter::~GgufWriter() = default;

void GgufWriter::start_key(std::string_view key, std::uint32_t type) {
  check(!header_written_, ErrorCode::internal, path_, ": key '", key, "' added after tensor data");
  check(std::find(keys_.begin(), keys_.end(), key) == keys_.end(), ErrorCode::internal, path_, ": key '", key,
        "' added twice");
  keys_.emplace_back(key);
  append_string(metadata_, key);
  append(metadata_, type);
}

void GgufWriter::append_string(std::string& out, std::string_view text) {
  append(out, std::uint64_t(text.size()));
  out += text;
}

template <class T>
void GgufWriter::add(std::string_view key, T value) {
  start_key(key, value_type<T>());
  append(metadata_, value);
}

void GgufWriter::add_string(std::string_view key, std::string_view value) {
  start_key(key, kString);
  append_string(metadata_, value);
}

template <class T>
void GgufWriter::add_array(std::string_view key, std::span<const T> values) {
  start_key(key, kArray);
  append(metadata_, value_type<T>());
  append(metadata_, std::uint64_t(values.size()));
  for (const T value : values) append(metadata_, value);
}

void GgufWriter::add_strings(std::string_view key, std::span<const std::string> values) {
  start_key(key, kArray);
  append(metadata_, kString);
  append(metadata_, std::uint64_t(values.size()));
  for (const auto& value : values) append_string(metadata_, value);
}

#define FASTKV_GGUF_VALUE(T)                             \
  template void GgufWriter::add<T>(std::string_view, T); \
  template void GgufWriter::add_array<T>(std::string_view, std::span<const T>);
FASTKV_GGUF_VALUE(bool)
FASTKV_GGUF_VALUE(float)
FASTKV_GGUF_VALUE(double)
FASTKV_GGUF_VALUE(std::uint8_t)
FASTKV_GGUF_VALUE(std::int8_t)
FASTKV_GGUF_VALUE(std::uint16_t)
FASTKV_GGUF_VALUE(std::int16_t)
FASTKV_GGUF_VALUE(std::uint32_t)
FASTKV_GGUF_VALUE(std::int32_t)
FASTKV_GGUF_VALUE(std::uint64_t)
FASTKV_GGUF_VALUE(std::int64_t)
#undef FASTKV_GGUF_VALUE

void GgufWriter::add_tensor(std::string_view name, std::string_view type, std::span<const std::uint64_t> dims) {
  check(!header_written_, ErrorCode::internal, path_, ": tensor '", name, "' added after tensor data");
  check(!dims.empty() && dims.size() <= 4, ErrorCode::internal, path_, ": tensor '", name,
        "': expected 1 to 4 dimensions");
  for (const auto& tensor : tensors_) {
    check(tensor.name != name, ErrorCode::internal, path_, ": tensor '", name, "' added twice");
  }
  check(std::find(dims.begin(), dims.end(), 0u) == dims.end(), ErrorCode::internal, path_, ": tensor '", name,
        "': expected dimensions of at least 1");
  std::uint64_t rows = 1;
  for (const auto dim : dims.subspan(1)) {
    check(checked_mul(rows, dim, rows), ErrorCode::internal, path_, ": tensor '", name, "': dimensions overflow");
  }
  std::uint64_t bytes = 0;
  check(checked_mul(rows, tensor_bytes(type, dims[0]), bytes), ErrorCode::internal, path_, ": tensor '", name,
        "': dimensions overflow");
  append_string(directory_, name);
  append(directory_, std::uint32_t(dims.size()));
  for (const auto dim : dims) append(directory_, dim);
  append(directory_, static_cast<std::uint32_t>(known_type(type)));
  append(directory_, next_offset_);
  next_offset_ += (bytes + kAlignment - 1) / kAlignment * kAlignment;
  tensors_.push_back({std::string(name), bytes});
}

std::uint64_t GgufWriter::declared_bytes() const {
  std::uint64_t sum = 0;
  for (const auto& tensor : tensors_) sum += tensor.bytes;
  return sum;
}

void GgufWriter::put(const void* data, std::size_t n) {
  buffer_.append(static_cast<const char*>(data), n);
  written_ += n;
  if (buffer_.size() >= kBufferBytes) flush();
}

void GgufWriter::flush() {
  file_->write(buffer_.data(), buffer_.size());
  buffer_.clear();
}

void GgufWriter::pad() {
  constexpr char kZeros[kAlignment] = {};
  put(kZeros, (kAlignment - written_ % kAlignment) % kAlignment);
}

void GgufWriter::write_header() {
  std::string start = "GGUF";
  append(start, std::uint32_t(3));
  append(start, std::uint64_t(tensors_.size()));
  append(start, std::uint64_t(keys_.size()));
  put(start.data(), start.size());
  put(metadata_.data(), metadata_.size());
  put(directory_.data(), directory_.size());
  pad();
  header_written_ = true;
}

void GgufWriter::write(std::span<const std::byte> data) {
  check(!finished_, ErrorCode::internal, path_, ": written to after the end");
  if (!header_written_) write_header();
  while (!data.empty()) {
    check(current_ < tensors_.size(), ErrorCode::internal, path_, ": more data than the declared tensors hold");
    const auto n = std::min<std::uint64_t>(data.size(), tensors_[current_].bytes - current_bytes_);
    put(data.data(), n);
    data = data.subspan(n);
    current_bytes_ += n;
    if (current_bytes_ == tensors_[current_].bytes) {
      pad();
      ++current_;
      current_bytes_ = 0;
    }
  }
}

void GgufWriter::finish() {
  check(!finished_, ErrorCode::internal, path_, ": finished twice");
  if (!header_written_) write_header();
  check(current_ == tensors_.size(), ErrorCode::internal, path_, ": expected data of ", tensors_.size(),
        " tensors, found ", current_);
  flush();
  file_->commit();
  finished_ = true;
}

}  // namespace fastkv
