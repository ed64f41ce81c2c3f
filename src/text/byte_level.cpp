// Implements byte_level.hpp.
#include "text/byte_level.hpp"

#include <array>

#include "text/utf8.hpp"

namespace fastkv {

namespace {

constexpr unsigned kLastCodePoint = 0x143;  // 0x100 + the 68 bytes that are not printable, minus 1
constexpr int kNoByte = -1;

struct Alphabet {
  std::array<unsigned, 256> character{};       // code point of a byte
  std::array<int, kLastCodePoint + 1> byte{};  // byte of a code point, or kNoByte

  constexpr Alphabet() {
    byte.fill(kNoByte);
    unsigned next = 0x100;
    for (unsigned b = 0; b < 256; ++b) {
      const bool printable = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
      character[b] = printable ? b : next++;
      byte[character[b]] = static_cast<int>(b);
    }
  }
};

constexpr Alphabet kAlphabet;

}  // namespace

std::string byte_to_character(std::uint8_t byte) {
  std::string out;
  append_utf8(kAlphabet.character[byte], out);
  return out;
}

std::optional<std::string> from_byte_level(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t i = 0; i < text.size();) {
    const auto lead = static_cast<unsigned char>(text[i]);
    unsigned code_point = lead;
    if (lead >= 0x80) {
      const bool two = lead >= 0xC2 && lead < 0xE0 && i + 1 < text.size() && (text[i + 1] & 0xC0) == 0x80;
      if (!two) return std::nullopt;
      code_point = ((lead & 0x1FU) << 6) | (static_cast<unsigned char>(text[i + 1]) & 0x3FU);
      ++i;
    }
    ++i;
    if (code_point > kLastCodePoint || kAlphabet.byte[code_point] == kNoByte) return std::nullopt;
    out += static_cast<char>(kAlphabet.byte[code_point]);
  }
  return out;
}

}  // namespace fastkv
