// fastkv-tokenize: text to token ids and back, with the vocabulary of a GGUF or a tokenizer.json.
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/cli.hpp"
#include "common/output.hpp"
#include "common/signals.hpp"
#include "fastkv/error.hpp"
#include "fastkv/tokenizer.hpp"

namespace fastkv::tools {

namespace {

struct Options {
  std::string vocabulary;
  std::optional<std::string> file, text;
  bool bos = false, parse_special = false, decode = false;
};

/// All bytes of a file, or of stdin for "-".
std::string read_all(const std::string& path) {
  const bool standard = path == "-";
  const std::string name = standard ? "stdin" : path;
  const auto close = [&](std::FILE* file) { return standard ? 0 : std::fclose(file); };
  const std::unique_ptr<std::FILE, decltype(close)> file(standard ? stdin : std::fopen(path.c_str(), "rb"), close);
  if (file == nullptr) throw Error(ErrorCode::io, "cannot open " + name + ": " + std::strerror(errno));
  std::string text;
  std::vector<char> buffer(1 << 20);
  while (const std::size_t n = std::fread(buffer.data(), 1, buffer.size(), file.get())) text.append(buffer.data(), n);
  if (std::ferror(file.get())) throw Error(ErrorCode::io, "cannot read " + name + ": " + std::strerror(errno));
  return text;
}

/// "[1, 2, 3]" → ids.
std::vector<std::int32_t> parse_ids(std::string_view text) {
  const char* at = text.data();
  const char* const end = at + text.size();
  const auto skip_spaces = [&] {
    while (at != end && std::strchr(" \t\r\n", *at) != nullptr && *at != '\0') ++at;
  };
  const auto take = [&](char c) {
    skip_spaces();
    const bool found = at != end && *at == c;
    at += found ? 1 : 0;
    return found;
  };
  const auto expect = [&](bool ok, const char* what) {
    if (ok) return;
    throw Error(ErrorCode::bad_input, std::string("expected a JSON array of token ids, found no ") + what +
                                          " at byte " + std::to_string(at - text.data()));
  };
  std::vector<std::int32_t> ids;
  expect(take('['), "'['");
  if (!take(']')) {
    do {
      skip_spaces();
      const auto [next, error] = std::from_chars(at, end, ids.emplace_back());
      expect(error == std::errc{}, "id");
      at = next;
    } while (take(','));
    expect(take(']'), "',' or ']'");
  }
  skip_spaces();
  expect(at == end, "end");
  return ids;
}

std::string print_ids(const std::vector<std::int32_t>& ids) {
  std::string out = "[";
  for (const std::int32_t id : ids) {
    if (out.size() > 1) out += ", ";
    out += std::to_string(id);
  }
  return out + "]\n";
}

int tokenize(const Options& options) {
  const std::string input = options.file ? read_all(*options.file) : *options.text;
  const Tokenizer tokenizer = Tokenizer::from_file(options.vocabulary);
  if (options.decode) {
    write_stdout(tokenizer.decode(parse_ids(input), options.parse_special));
    return 0;
  }
  std::vector<std::int32_t> ids = tokenizer.encode(input, options.parse_special);
  if (options.bos) {
    if (tokenizer.bos() < 0)
      throw Error(ErrorCode::unsupported, "--bos: " + options.vocabulary + " names no BOS token");
    ids.insert(ids.begin(), tokenizer.bos());
  }
  write_stdout(print_ids(ids));
  return 0;
}

int run(int argc, char** argv) {
  Options options;
  CommandLine command("fastkv-tokenize", "FILE -f TEXT|-p TEXT [options]",
                      "Prints the token ids of a text as one JSON array, or the text of such an array.");
  command.positional("FILE", "vocabulary: a GGUF of any architecture, or a tokenizer.json", options.vocabulary);
  command.option("-f,--file", "TEXT", options.file, "file with the text, byte for byte; - is stdin");
  command.option("-p,--prompt", "TEXT", options.text, "the text itself");
  command.flag("--bos", options.bos, "put the BOS token first");
  command.flag("--parse-special", options.parse_special,
               "read control tokens that the text spells; with --decode: print them");
  command.flag("--decode", options.decode, "from ids to text");
  if (const std::optional<int> status = command.parse(argc, argv)) return *status;
  if (options.file && options.text) throw UsageError("-f and -p exclude each other");
  if (!options.file && !options.text) throw UsageError("-f TEXT or -p TEXT is required");
  if (options.decode && options.bos) throw UsageError("--bos has no effect with --decode");
  return tokenize(options);
}

}  // namespace

}  // namespace fastkv::tools

int main(int argc, char** argv) {
  fastkv::tools::install_signal_handlers();
  return fastkv::tools::run_tool("fastkv-tokenize", [&] { return fastkv::tools::run(argc, argv); });
}
