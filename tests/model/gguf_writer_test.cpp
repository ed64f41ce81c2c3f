// Files written by GgufWriter are read back; a failed write leaves nothing behind.
#include "fastkv/gguf_writer.hpp"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <filesystem>

#include "core/quant_blocks.hpp"
#include "fastkv/error.hpp"
#include "model/gguf.hpp"

namespace fastkv {
namespace {

namespace fs = std::filesystem;

/// An empty directory, removed at the end.
class GgufWriterTest : public testing::Test {
 protected:
  void SetUp() override {
    directory_ = fs::temp_directory_path() / ("fastkv_writer_" + std::to_string(::getpid()));
    fs::create_directories(directory_);
  }
  void TearDown() override { fs::remove_all(directory_); }

  std::string path() const { return (directory_ / "model.gguf").string(); }
  bool empty() const { return fs::is_empty(directory_); }

  fs::path directory_;
};

template <class Body>
ErrorCode code_of(const Body& body) {
  try {
    body();
  } catch (const Error& error) {
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
    return error.code();
  }
  return ErrorCode::internal;
}

TEST_F(GgufWriterTest, RoundTrip) {
  const std::vector<std::string> words = {"a", "", std::string("b\0c", 3)};
  const std::vector<std::int32_t> numbers = {-1, 2};
  const std::vector<float> floats = {0.5f};
  std::vector<float> weights(512 * 3);
  for (std::size_t i = 0; i < weights.size(); ++i) weights[i] = float(i % 100) - 50;
  {
    GgufWriter writer(path());
    writer.add<std::uint8_t>("u8", 200);
    writer.add<std::int8_t>("i8", -5);
    writer.add<std::uint16_t>("u16", 60000);
    writer.add<std::int16_t>("i16", -6);
    writer.add<std::uint32_t>("u32", 4000000000u);
    writer.add<std::int32_t>("i32", -7);
    writer.add<std::uint64_t>("u64", 1ull << 40);
    writer.add<std::int64_t>("i64", -(1ll << 40));
    writer.add<float>("f32", 0.25f);
    writer.add<double>("f64", 0.125);
    writer.add<bool>("yes", true);
    writer.add_string("text", "word");
    writer.add_strings("words", words);
    writer.add_array<std::int32_t>("numbers", numbers);
    writer.add_array<float>("floats", floats);
    const std::uint64_t matrix[] = {512, 3}, vector[] = {5};
    for (const auto& type : tensor_types()) writer.add_tensor("m." + type, type, matrix);
    writer.add_tensor("v", "f32", vector);
    for (const auto& type : tensor_types()) {
      std::vector<std::byte> packed(tensor_bytes(type, weights.size()));
      quantize_tensor(type, weights.data(), weights.size(), packed.data());
      for (std::size_t at = 0; at < packed.size(); at += 1000) {  // pieces end anywhere
        writer.write(std::span(packed).subspan(at, std::min<std::size_t>(1000, packed.size() - at)));
      }
    }
    writer.write(std::as_bytes(std::span(weights).first(5)));
    EXPECT_FALSE(fs::exists(path()));
    writer.finish();
  }
  EXPECT_EQ(std::distance(fs::directory_iterator(directory_), fs::directory_iterator()), 1);

  const auto file = GgufFile::open(path());
  EXPECT_EQ(file.find_integer("u8"), 200);
  EXPECT_EQ(file.find_integer("i8"), -5);
  EXPECT_EQ(file.find_integer("u16"), 60000);
  EXPECT_EQ(file.find_integer("i16"), -6);
  EXPECT_EQ(file.find_integer("u32"), 4000000000);
  EXPECT_EQ(file.find_integer("i32"), -7);
  EXPECT_EQ(file.find_integer("u64"), 1ll << 40);
  EXPECT_EQ(file.find_integer("i64"), -(1ll << 40));
  EXPECT_EQ(file.get_f32("f32"), 0.25f);
  EXPECT_EQ(file.get_f32("f64"), 0.125f);
  EXPECT_EQ(file.find_bool("yes"), true);
  EXPECT_EQ(file.get_string("text"), "word");
  EXPECT_EQ(file.get_strings("words"), std::vector<std::string_view>(words.begin(), words.end()));
  EXPECT_EQ(file.find_integers("numbers"), (std::vector<std::int64_t>{-1, 2}));
  EXPECT_EQ(file.find_floats("floats"), floats);
  for (const auto& type : kDTypes) {
    const auto* tensor = file.find_tensor("m." + std::string(type.name));
    ASSERT_NE(tensor, nullptr);
    std::vector<std::byte> packed(row_bytes(type.type, weights.size()));
    quantize_row(type.type, weights.data(), packed.data(), weights.size());
    ASSERT_EQ(tensor->data.size(), packed.size());
    EXPECT_EQ(std::memcmp(tensor->data.data(), packed.data(), packed.size()), 0) << type.name;
  }
  EXPECT_EQ(std::memcmp(file.find_tensor("v")->data.data(), weights.data(), 20), 0);
}

TEST_F(GgufWriterTest, WithoutFinishNothingIsLeft) {
  {
    GgufWriter writer(path());
    const std::uint64_t dims[] = {4};
    writer.add_tensor("v", "F32", dims);
    writer.write(std::vector<std::byte>(8));
    EXPECT_EQ(code_of([&] { writer.finish(); }), ErrorCode::internal);  // 8 of 16 bytes
  }
  EXPECT_TRUE(empty());
}

TEST_F(GgufWriterTest, FullDiskIsOneError) {
  rlimit old{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &old), 0);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  const rlimit limit{1 << 20, old.rlim_max};
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &limit), 0);
  {
    GgufWriter writer(path());
    const std::uint64_t dims[] = {1 << 20};
    writer.add_tensor("v", "F32", dims);
    EXPECT_EQ(code_of([&] { writer.write(std::vector<std::byte>(4 << 20)); }), ErrorCode::io);
  }
  EXPECT_TRUE(empty());
  ::setrlimit(RLIMIT_FSIZE, &old);
  std::signal(SIGXFSZ, handler);
  EXPECT_EQ(code_of([&] { GgufWriter writer((directory_ / "none" / "model.gguf").string()); }), ErrorCode::io);
}

TEST_F(GgufWriterTest, WrongUseIsRefused) {
  GgufWriter writer(path());
  const std::uint64_t dims[] = {32}, odd[] = {33}, zero[] = {32, 0};
  writer.add<bool>("key", true);
  writer.add_tensor("v", "Q4_0", dims);
  EXPECT_EQ(code_of([&] { writer.add<bool>("key", true); }), ErrorCode::internal);
  EXPECT_EQ(code_of([&] { writer.add_tensor("v", "F32", dims); }), ErrorCode::internal);
  EXPECT_EQ(code_of([&] { writer.add_tensor("w", "F32", zero); }), ErrorCode::internal);
  EXPECT_EQ(code_of([&] { writer.add_tensor("w", "Q4_0", odd); }), ErrorCode::invalid_option);
  EXPECT_EQ(code_of([&] { writer.add_tensor("w", "Q2_K", dims); }), ErrorCode::invalid_option);
  writer.write(std::vector<std::byte>(18));
  EXPECT_EQ(code_of([&] { writer.write(std::vector<std::byte>(1)); }), ErrorCode::internal);
  EXPECT_EQ(code_of([&] { writer.add<bool>("late", true); }), ErrorCode::internal);
}

}  // namespace
}  // namespace fastkv
