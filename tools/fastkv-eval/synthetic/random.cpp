// Seeded random numbers: SplitMix64, and the texts made of it.
#include "fastkv-eval/synthetic/random.hpp"

namespace fastkv::tools {

Random::Random(std::uint64_t seed, std::string_view stream) : state_(seed) {
  std::uint64_t hash = 0xcbf29ce484222325;  // FNV-1a
  for (char c : stream) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  state_ = next() ^ hash;
}

std::uint64_t Random::next() {
  std::uint64_t z = state_ += 0x9e3779b97f4a7c15;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

std::string Random::number(int count) {
  std::string digits(1, static_cast<char>('1' + below(9)));
  while (static_cast<int>(digits.size()) < count) digits += static_cast<char>('0' + below(10));
  return digits;
}

std::string Random::letters(int count, char first) {
  std::string text;
  while (static_cast<int>(text.size()) < count) text += static_cast<char>(first + static_cast<char>(below(26)));
  return text;
}

std::string Random::uuid() {
  std::string text;
  for (int i = 0; i < 36; ++i) {
    if (i == 8 || i == 13 || i == 18 || i == 23) {
      text += '-';
    } else if (i == 14) {
      text += '4';
    } else {
      text += "0123456789abcdef"[i == 19 ? 8 + below(4) : below(16)];
    }
  }
  return text;
}

}  // namespace fastkv::tools
