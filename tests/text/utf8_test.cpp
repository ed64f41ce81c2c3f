// UTF-8 validation against a decoder that goes by the definition.
#include "text/utf8.hpp"

#include <gtest/gtest.h>

#include <cstdint>

#include "core/check.hpp"

namespace fastkv::test {

namespace {

/// Decodes by arithmetic and rejects by value: shortest form, no surrogates, at most U+10FFFF.
std::size_t first_invalid(const std::string& text) {
  std::size_t i = 0;
  while (i < text.size()) {
    const auto lead = static_cast<unsigned char>(text[i]);
    const std::size_t length = lead < 0x80   ? 1
                               : lead < 0xC0 ? 0
                               : lead < 0xE0 ? 2
                               : lead < 0xF0 ? 3
                               : lead < 0xF8 ? 4
                                             : 0;
    if (length == 0 || i + length > text.size()) return i;
    std::uint32_t value = length == 1 ? lead : lead & (0xFFU >> (length + 1));
    for (std::size_t k = 1; k < length; ++k) {
      const auto byte = static_cast<unsigned char>(text[i + k]);
      if ((byte >> 6) != 2) return i;
      value = (value << 6) | (byte & 0x3F);
    }
    constexpr std::uint32_t kLowest[] = {0, 0, 0x80, 0x800, 0x10000};
    if (value < kLowest[length] || value > 0x10FFFF || (value >= 0xD800 && value < 0xE000)) return i;
    i += length;
  }
  return std::string::npos;
}

TEST(Utf8, AgreesWithTheDefinitionOnAllShortSequences) {
  // Every class of byte has its lowest and highest member here.
  const unsigned bytes[] = {0x00, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xC1, 0xC2, 0xDF, 0xE0,
                            0xE1, 0xEC, 0xED, 0xEE, 0xEF, 0xF0, 0xF1, 0xF3, 0xF4, 0xF5, 0xF7, 0xF8, 0xFF};
  std::size_t invalid = 0;
  for (const unsigned a : bytes) {
    for (const unsigned b : bytes) {
      for (const unsigned c : bytes) {
        for (const unsigned d : bytes) {
          const std::string text = {static_cast<char>(a), static_cast<char>(b), static_cast<char>(c),
                                    static_cast<char>(d)};
          const std::size_t expected = first_invalid(text);
          ASSERT_EQ(find_invalid_utf8(text), expected) << std::hex << a << ' ' << b << ' ' << c << ' ' << d;
          invalid += expected != std::string::npos;
        }
      }
    }
  }
  EXPECT_GT(invalid, 100000U);
}

TEST(Utf8, FindsTheOffsetWhereverItIs) {
  for (std::size_t length = 0; length < 40; ++length) {
    for (std::size_t at = 0; at < length; ++at) {
      std::string text(length, 'x');
      EXPECT_EQ(find_invalid_utf8(text), std::string::npos);
      text[at] = '\xFF';
      EXPECT_EQ(find_invalid_utf8(text), at);
    }
  }
  EXPECT_EQ(find_invalid_utf8("ab\xC3"), 2U);
  try {
    check_utf8("ab\xC3(", "text");
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::bad_input);
    EXPECT_STREQ(error.what(), "text is not valid UTF-8 at byte 2");
  }
}

TEST(Utf8, ReplacesAll) {
  EXPECT_EQ(replace_all("a▁▁b", "▁", " "), "a  b");
  EXPECT_EQ(replace_all("aaa", "aa", "b"), "ba");
  EXPECT_EQ(replace_all("", "x", "y"), "");
}

}  // namespace

}  // namespace fastkv::test
