// GGUF v2/v3 files: typed metadata and a directory of tensors, checked against the size of the file (spec/models.md 2).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "runtime/mapped_file.hpp"

namespace fastkv {

/// Metadata value types, with their numbers in the file.
enum class GgufType : std::uint32_t {
  u8 = 0,
  i8 = 1,
  u16 = 2,
  i16 = 3,
  u32 = 4,
  i32 = 5,
  f32 = 6,
  boolean = 7,
  string = 8,
  array = 9,
  u64 = 10,
  i64 = 11,
  f64 = 12,
};
/// Bytes of one value; 0: not of a fixed size, or no such type.
std::size_t value_bytes(GgufType type);

/// One entry of the directory. `data` holds exactly the tensor's bytes when the type is in kDTypes; it is empty for
/// types whose block size this library does not know (their offset still lies inside the file).
struct GgufTensor {
  std::string_view name;
  std::uint32_t ggml_type = 0;
  std::uint32_t n_dims = 0;
  std::array<std::uint64_t, 4> dims{1, 1, 1, 1};  ///< ne: dims[0] is contiguous
  std::span<const std::byte> data;
  std::uint64_t entry_offset = 0;  ///< of the directory entry in the file, for messages
};

/// The bytes of `text` fit for a one-line message: quoted, control bytes escaped, long ones cut.
std::string quoted(std::string_view text);

/// A parsed file; the string views, spans and tensors it hands out live as long as it does (moving it keeps them).
/// The content is untrusted: every count, length and offset is checked, malformed files throw Error bad_file and files
/// of another kind (version 1, big-endian, split) Error unsupported.
class GgufFile {
 public:
  /// Maps (or reads) and parses `path`; also throws Error io.
  static GgufFile open(const std::string& path, FileAccess access = FileAccess::map);
  /// Parses `bytes`, which must outlive the result; `name` stands for the path in messages.
  static GgufFile from_memory(std::span<const std::byte> bytes, std::string name);

  const std::string& path() const { return path_; }

  /// find_*: the value of `key`, nullopt when absent; Error bad_file when it is of another kind or does not fit.
  /// Integers of any width and sign are taken where the value fits; floats of both widths.
  std::optional<std::int64_t> find_integer(std::string_view key) const;
  std::optional<std::uint32_t> find_u32(std::string_view key) const;
  std::optional<float> find_f32(std::string_view key) const;
  std::optional<bool> find_bool(std::string_view key) const;
  std::optional<std::string_view> find_string(std::string_view key) const;
  std::optional<std::vector<std::int64_t>> find_integers(std::string_view key) const;
  std::optional<std::vector<float>> find_floats(std::string_view key) const;
  std::optional<std::vector<std::string_view>> find_strings(std::string_view key) const;

  /// get_*: the same; Error bad_file names the key when it is absent.
  std::uint32_t get_u32(std::string_view key) const;
  float get_f32(std::string_view key) const;
  std::string_view get_string(std::string_view key) const;
  std::vector<std::string_view> get_strings(std::string_view key) const;

  bool has(std::string_view key) const { return find(key) != nullptr; }
  bool is_array(std::string_view key) const;
  /// Elements of the array `key`; nullopt when absent, Error bad_file when it is not an array.
  std::optional<std::uint64_t> array_size(std::string_view key) const;

  /// In file order; names are unique and data ranges do not overlap.
  const std::vector<GgufTensor>& tensors() const { return tensors_; }
  /// nullptr when there is no such tensor.
  const GgufTensor* find_tensor(std::string_view name) const;

  /// Bytes of the whole file.
  std::size_t size() const { return bytes_.size(); }
  /// Lets the system drop the pages of `range` (of this file) after its contents were copied elsewhere.
  void release(std::span<const std::byte> range) const noexcept;

 private:
  struct Value {
    GgufType type{};  ///< of the elements, for an array
    bool array = false;
    std::uint64_t count = 1;
    std::uint64_t offset = 0;  ///< of the first element, in bytes_
  };

  void parse();
  void parse_metadata(class GgufCursor& cursor, std::uint64_t count);
  void parse_directory(class GgufCursor& cursor, std::uint64_t count);
  void check_split() const;
  void check_layout(std::uint64_t alignment) const;
  const Value* find(std::string_view key) const;
  const Value* find_scalar(std::string_view key, std::string_view expected) const;
  const Value* find_array(std::string_view key, std::string_view expected) const;
  std::int64_t integer_at(std::string_view key, GgufType type, std::uint64_t offset, std::string_view expected) const;
  float float_at(std::string_view key, GgufType type, std::uint64_t offset) const;
  [[noreturn]] void fail_type(std::string_view key, std::string_view expected, const Value& found) const;
  [[noreturn]] void fail_missing(std::string_view key) const;

  std::string path_;
  std::optional<MappedFile> mapping_;  ///< absent: the bytes belong to the caller
  std::span<const std::byte> bytes_;
  std::map<std::string_view, Value, std::less<>> metadata_;  // ordered: hostile keys cannot collide
  std::vector<GgufTensor> tensors_;
  std::map<std::string_view, std::size_t, std::less<>> tensor_index_;
};

}  // namespace fastkv
