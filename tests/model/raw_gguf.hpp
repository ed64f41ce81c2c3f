// GGUF files assembled byte by byte for tests, so that every field can be made wrong.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace fastkv::test {

/// Encoded values: the type number and the bytes that follow it.
std::string u32(std::uint32_t value);
std::string i32(std::int32_t value);
std::string u64(std::uint64_t value);
std::string f32(float value);
std::string f64(double value);
std::string boolean(bool value);
std::string text(const std::string& value);
std::string u32s(const std::vector<std::uint32_t>& values);
std::string f32s(const std::vector<float>& values);
std::string texts(const std::vector<std::string>& values);
/// Only the bytes, without a type number.
std::string raw32(std::uint32_t value);
std::string raw64(std::uint64_t value);
std::string raw_text(const std::string& value);

struct RawTensor {
  std::string name;
  std::uint32_t type = 0;           ///< ggml's id
  std::vector<std::uint64_t> dims;  ///< dims[0] contiguous
  std::optional<std::uint32_t> n_dims;
  std::optional<std::uint64_t> offset;  ///< instead of the next free one
};

/// A file in parts. bytes() fills data with a pattern of small floats (type F32) or bytes (others).
struct RawGguf {
  std::string magic = "GGUF";
  std::uint32_t version = 3;
  std::optional<std::uint64_t> n_tensors, n_keys;  ///< instead of the true counts
  std::vector<std::pair<std::string, std::string>> keys;
  std::vector<RawTensor> tensors;
  std::uint64_t alignment = 32;
  std::string tail;  ///< after the last tensor

  RawGguf& set(const std::string& key, const std::string& value);
  RawGguf& erase_key(const std::string& key);
  RawGguf& erase_tensor(const std::string& name);
  RawTensor& tensor(const std::string& name);
  std::string bytes() const;
};

/// A complete model: 2 layers, D 32, F 64, 4 query and 2 KV heads of 8, 6 tokens, F32, tied, SentencePiece-style.
RawGguf small_model();

/// Reads the vocabulary, the configuration and the tensors of `bytes`, all that is there. The message of the Error,
/// whose code goes to `code`; empty when all could be read. Fails the test when the message is not one line.
std::string read_error(const std::string& bytes, int* code = nullptr);
inline std::string read_error(const RawGguf& file, int* code = nullptr) { return read_error(file.bytes(), code); }

/// Whether `message` contains all of `parts`.
testing::AssertionResult mentions(const std::string& message, std::initializer_list<const char*> parts);

/// `bytes` as the reader takes them.
std::span<const std::byte> as_bytes(const std::string& bytes);

}  // namespace fastkv::test
