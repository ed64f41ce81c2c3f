// Random valid UTF-8 for tests, with the seed to print.
#pragma once

#include <cstdint>
#include <random>
#include <string>

namespace fastkv::test {

class RandomText {
 public:
  explicit RandomText(unsigned seed = std::random_device{}()) : seed_(seed), random_(seed) {}

  std::string seed() const { return "seed " + std::to_string(seed_); }
  std::uint32_t below(std::uint32_t n) { return static_cast<std::uint32_t>(random_()) % n; }

  /// `characters` characters: mostly ASCII and spaces, some of every plane, some repeated.
  std::string text(std::size_t characters) {
    std::string out;
    std::uint32_t code_point = 'a';
    for (std::size_t i = 0; i < characters; ++i) {
      switch (below(8)) {
        case 0:
          break;  // the last one again
        case 1:
          code_point = ' ';
          break;
        case 2:
          code_point = below(0x80);
          break;
        case 3:
          code_point = 0x80 + below(0x780);
          break;
        case 4:
          code_point = 0x800 + below(0xD000);
          break;
        case 5:
          code_point = 0xE000 + below(0x102000);
          break;
        default:
          code_point = 'a' + below(4);
      }
      append(code_point, out);
    }
    return out;
  }

 private:
  static void append(std::uint32_t c, std::string& out) {
    if (c < 0x80) {
      out += static_cast<char>(c);
      return;
    }
    const int more = c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
    constexpr unsigned kLead[] = {0, 0xC0, 0xE0, 0xF0};
    out += static_cast<char>(kLead[more] | (c >> (6 * more)));
    for (int k = more - 1; k >= 0; --k) out += static_cast<char>(0x80 | ((c >> (6 * k)) & 0x3F));
  }

  unsigned seed_;
  std::mt19937 random_;
};

}  // namespace fastkv::test
