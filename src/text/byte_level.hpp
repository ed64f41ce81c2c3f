// The alphabet in which byte-level BPE files write bytes: every byte is one printable character (GPT-2's encoder).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace fastkv {

/// The character that stands for `byte`, as UTF-8: itself if printable in Latin-1, else one from U+0100 on.
std::string byte_to_character(std::uint8_t byte);

/// The bytes that `text` stands for ("Ġthe" → " the"); nothing when a character is outside the alphabet.
std::optional<std::string> from_byte_level(std::string_view text);

}  // namespace fastkv
