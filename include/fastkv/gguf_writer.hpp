// Writing GGUF version 3 files, tensor data streamed, so that a model need not fit in memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace fastkv {

/// Names of the tensor types that can be written, as ggml spells them: "F32", "Q4_0", "Q4_K", …
std::vector<std::string> tensor_types();
/// Weights per block and bytes of `n` weights (a multiple of the block) of `type`, any case. Throws Error
/// invalid_option for an unknown type or a count that is no multiple.
std::size_t tensor_block_weights(std::string_view type);
std::size_t tensor_bytes(std::string_view type, std::uint64_t n);
/// dst[0..tensor_bytes(type, n)) = x[0..n) in `type`; errors as above.
void quantize_tensor(std::string_view type, const float* x, std::uint64_t n, void* dst);

class AtomicFile;

/// Writes one file in this order: metadata and tensor declarations, then the data of all tensors as declared, then
/// finish(). The bytes go to a temporary file beside `path`, which finish() renames; without finish() the destructor
/// removes the temporary and `path` is untouched. Throws Error io (full disk, no permission: one line),
/// internal (called out of order, wrong sizes, a name or key given twice).
class GgufWriter {
 public:
  explicit GgufWriter(std::string path);
  ~GgufWriter();
  GgufWriter(const GgufWriter&) = delete;
  GgufWriter& operator=(const GgufWriter&) = delete;

  /// T: bool, float, double or an integer of 8 to 64 bits.
  template <class T>
  void add(std::string_view key, T value);
  void add_string(std::string_view key, std::string_view value);
  template <class T>
  void add_array(std::string_view key, std::span<const T> values);
  void add_strings(std::string_view key, std::span<const std::string> values);

  /// Declares a tensor; dims as in the file, dims[0] contiguous: a matrix of `out` rows is {in, out}.
  void add_tensor(std::string_view name, std::string_view type, std::span<const std::uint64_t> dims);

  /// The next bytes of the tensor data; pieces of any size that together are the declared tensors, in order.
  void write(std::span<const std::byte> data);

  /// Checks that every tensor is complete and puts the file in place.
  void finish();

  /// Bytes of tensor data declared so far, without padding.
  std::uint64_t declared_bytes() const;

 private:
  struct Tensor {
    std::string name;
    std::uint64_t bytes = 0;
  };

  void put(const void* data, std::size_t n);
  void flush();
  void pad();
  void start_key(std::string_view key, std::uint32_t type);
  void append_string(std::string& out, std::string_view text);
  void write_header();

  std::string path_;
  std::unique_ptr<AtomicFile> file_;
  std::string buffer_;         ///< bytes not yet handed to the system
  std::uint64_t written_ = 0;  ///< bytes of the file so far, buffer included
  std::string metadata_;       ///< encoded keys and values
  std::string directory_;      ///< encoded tensor entries
  std::vector<std::string> keys_;
  std::vector<Tensor> tensors_;
  std::uint64_t next_offset_ = 0;    ///< of the next declared tensor in the data
  std::size_t current_ = 0;          ///< tensor being written
  std::uint64_t current_bytes_ = 0;  ///< of it, written so far
  bool header_written_ = false;
  bool finished_ = false;
};

}  // namespace fastkv
