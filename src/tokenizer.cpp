// Tokenizer::from_file: which kind of file it is, and who reads it.
#include <array>
#include <cstring>
#include <fstream>
#include <string>

#include "core/check.hpp"
#include "fastkv/tokenizer.hpp"
#include "model/gguf.hpp"
#include "model/vocab.hpp"
#include "text/tokenizer_impl.hpp"
#include "text/tokenizer_json.hpp"

namespace fastkv {

Tokenizer Tokenizer::from_file(const std::string& path) {
  std::array<char, 4> magic{};
  {
    std::ifstream file(path, std::ios::binary);
    check(file.good(), ErrorCode::io, path, ": cannot be opened");
    file.read(magic.data(), magic.size());
    check(!file.bad(), ErrorCode::io, path, ": cannot be read");
  }
  const bool gguf = std::memcmp(magic.data(), "GGUF", magic.size()) == 0;
  return Tokenizer(make_tokenizer(gguf ? read_vocab(GgufFile::open(path)) : read_tokenizer_json(path)));
}

}  // namespace fastkv
