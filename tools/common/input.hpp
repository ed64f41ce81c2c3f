// Whole files of text.
#pragma once

#include <string>

namespace fastkv::tools {

/// All bytes of a file, or of stdin for "-". Throws Error io.
std::string read_document(const std::string& path);

}  // namespace fastkv::tools
