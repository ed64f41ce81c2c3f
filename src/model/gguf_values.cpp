// Typed access to the metadata of GGUF files.
#include <cmath>
#include <cstring>
#include <limits>

#include "core/check.hpp"
#include "model/gguf.hpp"
#include "model/gguf_cursor.hpp"

namespace fastkv {
namespace {

std::string_view type_name(GgufType type) {
  constexpr std::string_view kNames[] = {"u8",        "i8",       "u16",   "i16", "u32", "i32", "f32",
                                         "a boolean", "a string", "array", "u64", "i64", "f64"};
  return kNames[static_cast<std::uint32_t>(type)];  // the parser admits no other
}

bool is_integer(GgufType type) {
  switch (type) {
    case GgufType::u8:
    case GgufType::i8:
    case GgufType::u16:
    case GgufType::i16:
    case GgufType::u32:
    case GgufType::i32:
    case GgufType::u64:
    case GgufType::i64:
      return true;
    default:
      return false;
  }
}

template <class T>
T load(std::span<const std::byte> bytes, std::uint64_t offset) {
  T value;
  std::memcpy(&value, bytes.data() + offset, sizeof(T));
  return value;
}

}  // namespace

const GgufFile::Value* GgufFile::find(std::string_view key) const {
  const auto found = metadata_.find(key);
  return found == metadata_.end() ? nullptr : &found->second;
}

void GgufFile::fail_type(std::string_view key, std::string_view expected, const Value& found) const {
  fail(ErrorCode::bad_file, path_, ": byte ", found.offset, ": key ", quoted(key), ": expected ", expected, ", found ",
       found.array ? "an array of " : "", type_name(found.type));
}

void GgufFile::fail_missing(std::string_view key) const {
  fail(ErrorCode::bad_file, path_, ": expected the key ", quoted(key), ", found none");
}

const GgufFile::Value* GgufFile::find_scalar(std::string_view key, std::string_view expected) const {
  const auto* value = find(key);
  if (value != nullptr && value->array) fail_type(key, expected, *value);
  return value;
}

const GgufFile::Value* GgufFile::find_array(std::string_view key, std::string_view expected) const {
  const auto* value = find(key);
  if (value != nullptr && !value->array) fail_type(key, expected, *value);
  return value;
}

std::int64_t GgufFile::integer_at(std::string_view key, GgufType type, std::uint64_t offset,
                                  std::string_view expected) const {
  switch (type) {
    case GgufType::u8:
      return load<std::uint8_t>(bytes_, offset);
    case GgufType::i8:
      return load<std::int8_t>(bytes_, offset);
    case GgufType::u16:
      return load<std::uint16_t>(bytes_, offset);
    case GgufType::i16:
      return load<std::int16_t>(bytes_, offset);
    case GgufType::u32:
      return load<std::uint32_t>(bytes_, offset);
    case GgufType::i32:
      return load<std::int32_t>(bytes_, offset);
    case GgufType::i64:
      return load<std::int64_t>(bytes_, offset);
    case GgufType::u64: {
      const auto value = load<std::uint64_t>(bytes_, offset);
      check(value <= std::uint64_t(INT64_MAX), ErrorCode::bad_file, path_, ": byte ", offset, ": key ", quoted(key),
            ": expected ", expected, ", found ", value);
      return std::int64_t(value);
    }
    default:
      fail_type(key, expected, Value{type, false, 1, offset});
  }
}

float GgufFile::float_at(std::string_view key, GgufType type, std::uint64_t offset) const {
  if (type == GgufType::f32) return load<float>(bytes_, offset);
  if (type != GgufType::f64) fail_type(key, "a float", Value{type, false, 1, offset});
  const auto value = load<double>(bytes_, offset);
  check(!(std::abs(value) > std::numeric_limits<float>::max()), ErrorCode::bad_file, path_, ": byte ", offset, ": key ",
        quoted(key), ": expected a float of 32 bits, found ", value);
  return float(value);
}

std::optional<std::int64_t> GgufFile::find_integer(std::string_view key) const {
  constexpr std::string_view kExpected = "an integer below 2^63";
  const auto* value = find_scalar(key, kExpected);
  if (value == nullptr) return std::nullopt;
  return integer_at(key, value->type, value->offset, kExpected);
}

std::optional<std::uint32_t> GgufFile::find_u32(std::string_view key) const {
  const auto number = find_integer(key);
  if (!number) return std::nullopt;
  check(*number >= 0 && *number <= std::int64_t(UINT32_MAX), ErrorCode::bad_file, path_, ": byte ", find(key)->offset,
        ": key ", quoted(key), ": expected an integer from 0 to ", UINT32_MAX, ", found ", *number);
  return std::uint32_t(*number);
}

std::optional<float> GgufFile::find_f32(std::string_view key) const {
  const auto* value = find_scalar(key, "a float");
  if (value == nullptr) return std::nullopt;
  return float_at(key, value->type, value->offset);
}

std::optional<bool> GgufFile::find_bool(std::string_view key) const {
  const auto* value = find_scalar(key, "a boolean");
  if (value == nullptr) return std::nullopt;
  if (value->type != GgufType::boolean) fail_type(key, "a boolean", *value);
  return load<std::uint8_t>(bytes_, value->offset) != 0;
}

std::optional<std::string_view> GgufFile::find_string(std::string_view key) const {
  const auto* value = find_scalar(key, "a string");
  if (value == nullptr) return std::nullopt;
  if (value->type != GgufType::string) fail_type(key, "a string", *value);
  GgufCursor cursor(bytes_, path_);
  cursor.skip(value->offset, "metadata");
  return cursor.read_string(key);
}

std::optional<std::vector<std::int64_t>> GgufFile::find_integers(std::string_view key) const {
  const auto* value = find_array(key, "an array of integers");
  if (value == nullptr) return std::nullopt;
  if (!is_integer(value->type)) fail_type(key, "an array of integers", *value);
  std::vector<std::int64_t> out(value->count);
  for (std::uint64_t i = 0; i < value->count; ++i) {
    out[i] = integer_at(key, value->type, value->offset + i * value_bytes(value->type), "an integer below 2^63");
  }
  return out;
}

std::optional<std::vector<float>> GgufFile::find_floats(std::string_view key) const {
  const auto* value = find_array(key, "an array of floats");
  if (value == nullptr) return std::nullopt;
  if (value->type != GgufType::f32 && value->type != GgufType::f64) fail_type(key, "an array of floats", *value);
  std::vector<float> out(value->count);
  for (std::uint64_t i = 0; i < value->count; ++i) {
    out[i] = float_at(key, value->type, value->offset + i * value_bytes(value->type));
  }
  return out;
}

std::optional<std::vector<std::string_view>> GgufFile::find_strings(std::string_view key) const {
  const auto* value = find_array(key, "an array of strings");
  if (value == nullptr) return std::nullopt;
  if (value->type != GgufType::string) fail_type(key, "an array of strings", *value);
  GgufCursor cursor(bytes_, path_);
  cursor.skip(value->offset, "metadata");
  std::vector<std::string_view> out(value->count);
  for (auto& text : out) text = cursor.read_string(key);
  return out;
}

std::uint32_t GgufFile::get_u32(std::string_view key) const {
  if (const auto value = find_u32(key)) return *value;
  fail_missing(key);
}

float GgufFile::get_f32(std::string_view key) const {
  if (const auto value = find_f32(key)) return *value;
  fail_missing(key);
}

std::string_view GgufFile::get_string(std::string_view key) const {
  if (const auto value = find_string(key)) return *value;
  fail_missing(key);
}

std::vector<std::string_view> GgufFile::get_strings(std::string_view key) const {
  if (auto value = find_strings(key)) return *std::move(value);
  fail_missing(key);
}

bool GgufFile::is_array(std::string_view key) const {
  const auto* value = find(key);
  return value != nullptr && value->array;
}

std::optional<std::uint64_t> GgufFile::array_size(std::string_view key) const {
  const auto* value = find_array(key, "an array");
  if (value == nullptr) return std::nullopt;
  return value->count;
}

}  // namespace fastkv
