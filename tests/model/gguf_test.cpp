// The container: truncated, hostile and odd GGUF files give one line of error that names the place, or are read.
#include "model/gguf.hpp"

#include <gtest/gtest.h>

#include "fastkv/error.hpp"
#include "model/raw_gguf.hpp"

namespace fastkv {
namespace {

using namespace test;

TEST(Gguf, ReadsTheSmallModel) {
  EXPECT_EQ(read_error(small_model()), "");
  auto version2 = small_model();
  version2.version = 2;
  EXPECT_EQ(read_error(version2), "");
}

TEST(Gguf, TruncatedAnywhere) {
  const auto bytes = small_model().bytes();
  for (std::size_t n = 0; n < bytes.size(); n += n < 3000 ? 1 : 41) {  // metadata and directory end below 3000
    // The last tensor's padding may be missing: every tensor is complete.
    if (bytes.size() - n < 32 && read_error(bytes.substr(0, n)).empty()) continue;
    ASSERT_NE(read_error(bytes.substr(0, n)), "") << n;
  }
  EXPECT_TRUE(mentions(read_error(bytes.substr(0, 30)), {"byte 24: expected 8 bytes", "found 6"}));
  EXPECT_TRUE(mentions(read_error(bytes.substr(0, bytes.size() - 32)), {"output_norm.weight", "found a file of"}));
}

/// Any single byte replaced: an Error or a model, never a crash (run under sanitizers too).
TEST(Gguf, EveryByteCorrupted) {
  const auto bytes = small_model().bytes();
  for (std::size_t i = 0; i < 2048; ++i) {
    for (const char value : {'\x00', '\x7f', '\xff', char(bytes[i] ^ 0x01), char(bytes[i] ^ 0x80)}) {
      auto changed = bytes;
      changed[i] = value;
      read_error(changed);
    }
  }
}

TEST(Gguf, OtherKindsOfFiles) {
  auto file = small_model();
  int code = 0;
  file.magic = "GGML";
  EXPECT_TRUE(mentions(read_error(file, &code), {"expected the magic 'GGUF', found 'GGML'"}));
  EXPECT_EQ(code, int(ErrorCode::bad_file));
  file = small_model();
  file.version = 1;
  EXPECT_TRUE(mentions(read_error(file, &code), {"GGUF version 1 is not supported; supported: 2, 3"}));
  EXPECT_EQ(code, int(ErrorCode::unsupported));
  file.version = 0x03000000;
  EXPECT_TRUE(mentions(read_error(file, &code), {"big-endian"}));
  EXPECT_EQ(code, int(ErrorCode::unsupported));
  file = small_model().set("split.count", u32(3));
  EXPECT_TRUE(mentions(read_error(file, &code), {"3 parts", "merge"}));
  EXPECT_EQ(code, int(ErrorCode::unsupported));
  EXPECT_EQ(read_error(small_model().set("split.count", u32(1))), "");
  EXPECT_TRUE(mentions(read_error(std::string()), {"found 0 before the end"}));
}

TEST(Gguf, HostileCounts) {
  for (const std::uint64_t count : {std::uint64_t(1) << 17, std::uint64_t(1) << 40, ~std::uint64_t(0)}) {
    auto file = small_model();
    file.n_tensors = count;
    EXPECT_TRUE(mentions(read_error(file), {"tensors, found "}));
    file = small_model();
    file.n_keys = count;
    EXPECT_TRUE(mentions(read_error(file), {"keys, found "}));
    EXPECT_NE(read_error(small_model().set("x", raw32(9) + raw32(4) + raw64(count))), "");
    EXPECT_NE(read_error(small_model().set("x", raw32(9) + raw32(8) + raw64(count))), "");
    EXPECT_NE(read_error(small_model().set("x", raw32(8) + raw64(count))), "");
  }
  auto file = small_model();
  file.n_keys = file.keys.size() + 1;
  EXPECT_NE(read_error(file), "");
  file = small_model();
  file.n_tensors = file.tensors.size() + 1;
  EXPECT_NE(read_error(file), "");
}

TEST(Gguf, HostileValues) {
  EXPECT_TRUE(mentions(read_error(small_model().set("bad", raw32(13) + raw32(0))),
                       {"'bad': expected a value type from 0 to 12"}));
  EXPECT_TRUE(
      mentions(read_error(small_model().set("bad", raw32(9) + raw32(9) + raw64(1) + u32s({1}))), {"array of arrays"}));
  EXPECT_TRUE(mentions(read_error(small_model().set("", u32(1))), {"expected a key of 1 to"}));
  auto file = small_model();
  file.keys.emplace_back("general.name", text("again"));
  EXPECT_TRUE(mentions(read_error(file), {"'general.name': expected once"}));
  // Bytes of the file do not reach a terminal as they are.
  file = small_model();
  file.keys.emplace_back("a\nb\x1b", raw32(99));
  EXPECT_TRUE(mentions(read_error(file), {"'a\\x0ab\\x1b'"}));
}

TEST(Gguf, HostileTensors) {
  const auto with = [](auto change) {
    auto file = small_model();
    change(file.tensor("blk.1.ffn_up.weight"));
    return read_error(file);
  };
  EXPECT_TRUE(mentions(with([](auto& t) { t.n_dims = 5; }), {"1 to 4 dimensions, found 5"}));
  EXPECT_TRUE(mentions(with([](auto& t) { t.n_dims = 0; }), {"1 to 4 dimensions, found 0"}));
  EXPECT_TRUE(mentions(with([](auto& t) { t.n_dims = ~0u; }), {"1 to 4 dimensions"}));
  EXPECT_TRUE(mentions(with([](auto& t) { t.dims = {32, 0}; }), {"'blk.1.ffn_up.weight': expected dimensions"}));
  EXPECT_TRUE(mentions(with([](auto& t) { t.dims = {std::uint64_t(1) << 40, std::uint64_t(1) << 40}; }), {"product"}));
  EXPECT_TRUE(mentions(with([](auto& t) {
                         t.dims = {std::uint64_t(1) << 32, std::uint64_t(1) << 20};
                       }),
                       {"found a file of"}));
  EXPECT_TRUE(mentions(with([](auto& t) { t.dims = {~std::uint64_t(0), 1}; }), {"product"}));
  EXPECT_TRUE(mentions(with([](auto& t) { t.dims = {2, std::uint64_t(1) << 62}; }), {"product"}));
  EXPECT_TRUE(mentions(with([](auto& t) { t.offset = std::uint64_t(1) << 40; }), {"found a file of"}));
  EXPECT_TRUE(mentions(with([](auto& t) { t.offset = ~std::uint64_t(31); }), {"found a file of"}));
  EXPECT_TRUE(mentions(with([](auto& t) { t.offset = 8; }), {"multiple of 32, found 8"}));
  EXPECT_TRUE(mentions(with([](auto& t) { t.offset = 0; }), {"overlap with 'token_embd.weight'"}));
  EXPECT_TRUE(mentions(with([](auto& t) { t.name = "blk.0.ffn_up.weight"; }), {"second time"}));
  EXPECT_TRUE(mentions(with([](auto& t) { t.name = std::string(65, 'x'); }), {"a name of 1 to 64 bytes"}));
  EXPECT_TRUE(mentions(with([](auto& t) {
                         t = {t.name, 2, {33, 64}, {}, 0};
                       }),
                       {"multiple of 32 weights for type Q4_0"}));
}

TEST(Gguf, Alignment) {
  for (const std::uint32_t alignment : {8u, 64u, 4096u}) {
    auto file = small_model().set("general.alignment", u32(alignment));
    file.alignment = alignment;
    EXPECT_EQ(read_error(file), "") << alignment;
  }
  for (const std::uint32_t alignment : {0u, 1u, 4u, 24u, 1u << 21, ~0u}) {
    EXPECT_TRUE(mentions(read_error(small_model().set("general.alignment", u32(alignment))), {"power of two"}))
        << alignment;
  }
  EXPECT_TRUE(mentions(read_error(small_model().set("general.alignment", text("32"))), {"'general.alignment'"}));
}

TEST(Gguf, LongerThanItsTensors) {
  auto file = small_model();
  file.tail.push_back('x');
  EXPECT_TRUE(mentions(read_error(file), {"expected the file to end at byte"}));
}

TEST(Gguf, TypedAccess) {
  RawGguf raw;
  raw.set("u32", u32(7))
      .set("i32", i32(-7))
      .set("u64", u64(1ull << 40))
      .set("u8", raw32(0) + "\x05")
      .set("f32", f32(0.5f));
  raw.set("f64", f64(0.25)).set("f64big", f64(1e300)).set("bool", boolean(true)).set("text", text("abc"));
  raw.set("u32s", u32s({1, 2, 3}))
      .set("f32s", f32s({1, 2}))
      .set("texts", texts({"x", "", "yz"}))
      .set("huge", u64(~0ull));
  const auto bytes = raw.bytes();
  const auto file = GgufFile::from_memory(as_bytes(bytes), "f");
  EXPECT_EQ(file.get_u32("u32"), 7u);
  EXPECT_EQ(file.get_u32("u8"), 5u);
  EXPECT_EQ(file.find_integer("i32"), -7);
  EXPECT_EQ(file.find_integer("u64"), std::int64_t(1) << 40);
  EXPECT_EQ(file.get_f32("f32"), 0.5f);
  EXPECT_EQ(file.get_f32("f64"), 0.25f);
  EXPECT_EQ(file.find_bool("bool"), true);
  EXPECT_EQ(file.get_string("text"), "abc");
  EXPECT_EQ(file.find_integers("u32s"), (std::vector<std::int64_t>{1, 2, 3}));
  EXPECT_EQ(file.find_floats("f32s"), (std::vector<float>{1, 2}));
  EXPECT_EQ(file.get_strings("texts"), (std::vector<std::string_view>{"x", "", "yz"}));
  EXPECT_EQ(file.array_size("texts"), 3u);
  EXPECT_FALSE(file.find_u32("none"));
  EXPECT_FALSE(file.find_strings("none"));
  EXPECT_FALSE(file.array_size("none"));
  EXPECT_TRUE(file.is_array("u32s"));
  EXPECT_FALSE(file.is_array("u32"));

  const auto message = [&](auto call) -> std::string {
    try {
      call();
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_TRUE(mentions(message([&] { file.get_u32("none"); }), {"expected the key 'none'"}));
  EXPECT_TRUE(mentions(message([&] { file.get_u32("i32"); }), {"'i32'", "found -7"}));
  EXPECT_TRUE(mentions(message([&] { file.get_u32("u64"); }), {"found 1099511627776"}));
  EXPECT_TRUE(mentions(message([&] { file.get_u32("huge"); }), {"found 18446744073709551615"}));
  EXPECT_TRUE(mentions(message([&] { file.get_u32("text"); }), {"found a string"}));
  EXPECT_TRUE(mentions(message([&] { file.get_u32("u32s"); }), {"found an array of u32"}));
  EXPECT_TRUE(mentions(message([&] { file.get_f32("u32"); }), {"expected a float, found u32"}));
  EXPECT_TRUE(mentions(message([&] { file.get_f32("f64big"); }), {"float of 32 bits"}));
  EXPECT_TRUE(mentions(message([&] { file.find_bool("u32"); }), {"expected a boolean"}));
  EXPECT_TRUE(mentions(message([&] { file.get_string("u32"); }), {"expected a string"}));
  EXPECT_TRUE(
      mentions(message([&] { file.get_strings("u32s"); }), {"expected an array of strings, found an array of u32"}));
  EXPECT_TRUE(mentions(message([&] { file.find_integers("texts"); }), {"an array of integers"}));
  EXPECT_TRUE(mentions(message([&] { file.find_floats("u32s"); }), {"an array of floats"}));
  EXPECT_TRUE(mentions(message([&] { file.array_size("u32"); }), {"expected an array, found u32"}));
}

TEST(Gguf, MovingKeepsViews) {
  const auto bytes = small_model().bytes();
  auto first = GgufFile::from_memory(as_bytes(bytes), "f");
  const auto* data = first.find_tensor("output_norm.weight")->data.data();
  const auto second = std::move(first);
  EXPECT_EQ(second.find_tensor("output_norm.weight")->data.data(), data);
  EXPECT_EQ(second.get_string("general.name"), "small");
}

}  // namespace
}  // namespace fastkv
