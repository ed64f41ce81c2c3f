// From a text file to windows of tokens.
#include "fastkv-eval/text_windows.hpp"

#include "common/format.hpp"
#include "common/input.hpp"
#include "fastkv/error.hpp"

namespace fastkv::tools {

void TextFlags::declare(CommandLine& command) { command.option("-f,--file", "FILE", file, "the text; -: stdin"); }

void TextFlags::check() const {
  if (file.empty()) throw UsageError("no text: -f FILE");
}

std::vector<Tokens> read_windows(const std::string& path, std::int64_t length, std::int64_t stride, std::int64_t limit,
                                 const Tokenizer& tokenizer) {
  Tokens tokens;
  try {
    tokens = tokenizer.encode(read_document(path));
  } catch (const Error& error) {
    if (error.code() == ErrorCode::io) throw;
    throw Error(error.code(), path + ": " + error.what());
  }
  const auto n = static_cast<std::int64_t>(tokens.size());
  std::vector<Tokens> windows;
  for (std::int64_t begin = 0; begin + length <= n; begin += stride) {
    if (limit > 0 && static_cast<std::int64_t>(windows.size()) == limit) break;
    windows.emplace_back(tokens.begin() + begin, tokens.begin() + begin + length);
    if (tokenizer.add_bos() && tokenizer.bos() >= 0) windows.back()[0] = tokenizer.bos();
  }
  if (windows.empty()) {
    throw Error(ErrorCode::bad_input, format("%s: expected at least one window of %lld tokens, found %lld tokens",
                                             path.c_str(), static_cast<long long>(length), static_cast<long long>(n)));
  }
  return windows;
}

}  // namespace fastkv::tools
