// The command line of every tool: options declared once, brought to one spelling, then parsed by CLI11.
#pragma once

#include <charconv>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace fastkv::tools {

/// A mistake on the command line. what() is the one line to print; exit status 2.
class UsageError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Reads all of `text` as a number. Throws UsageError ("expected an integer", "expected a number").
std::int64_t parse_integer(const std::string& text);
double parse_number(const std::string& text);

/// Limits of a numeric option, both inclusive, and how they are called in the message ("must be in (0, 1]").
template <class T>
struct Limits {
  T low, high;
  const char* words;
};

/// Names are given as "-m,--model,~--old-name,!--no-model" (`~!` for both): commas between; the first long one is the
/// option's name in messages and its environment variable (FASTKV_ARG_MODEL); `~` hides a spelling from --help; `!`
/// (switches only) is the negation. In long names `_` and `-` are the same. Single-dash names may have several letters,
/// as in llama.cpp. The last occurrence wins, and the command line wins over the environment.
class CommandLine {
 public:
  /// Takes the value; throws UsageError with what is wrong about it, without the option's name.
  using Setter = std::function<void(const std::string& value)>;

  /// `usage` follows "usage: PROGRAM " in --help; `summary` is one sentence. --help and --version exist already.
  CommandLine(std::string program, std::string usage, std::string summary);
  ~CommandLine();
  CommandLine(const CommandLine&) = delete;

  /// Heading in --help for the options declared from here on; "" hides them.
  void group(std::string heading);

  /// An option with one value; `value` is its placeholder in --help.
  void add(const std::string& names, const std::string& value, const std::string& help, Setter set);
  /// As add(), but every occurrence is passed on, in order.
  void add_repeated(const std::string& names, const std::string& value, const std::string& help, Setter set);
  /// A switch; negated spellings pass false.
  void flag(const std::string& names, const std::string& help, std::function<void(bool)> set);
  void flag(const std::string& names, bool& target, const std::string& help);
  void flag(const std::string& names, std::optional<bool>& target, const std::string& help);
  /// A spelling that is recognised only to refuse it: exit status 2 with the line that `message(spelling)` makes.
  void refuse(const std::string& names, bool takes_value, std::function<std::string(const std::string&)> message);
  /// A positional argument, in order of declaration. Missing and required: UsageError.
  void positional(const std::string& name, const std::string& help, std::string& target, bool required = true);
  /// Any number of positional arguments, after the others.
  void positionals(const std::string& name, const std::string& help, std::vector<std::string>& targets);

  /// A text, integer or floating-point option; T may be std::optional of these.
  template <class T>
  void option(const std::string& names, const std::string& value, T& target, const std::string& help);
  /// The same with limits.
  template <class T, class L>
  void option(const std::string& names, const std::string& value, T& target, const std::string& help, Limits<L> limits);
  /// One of several words; words after `~` are accepted but not listed. T is the mapped type or std::optional of it.
  template <class T, class V>
  void choice(const std::string& names, T& target, std::vector<std::pair<std::string, V>> words,
              const std::string& help);

  /// Parses. Returns an exit status when the program must end now (--help and --version print and return 0); nothing
  /// when it should go on. Throws UsageError.
  std::optional<int> parse(int argc, const char* const* argv);

  /// After parse(): whether the option of that name ("--tsp-rate") was given, here or in the environment.
  bool given(const std::string& name) const;

  /// What CLI11 gets to see: every option as "--name=value" (or "--name" and an empty value), one spelling each.
  /// Throws UsageError for unknown options, with a suggestion where a near name exists.
  std::vector<std::string> normalise(const std::vector<std::string>& arguments) const;

  std::string help() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// "expected a, b or c" for the words that are not hidden.
std::string expected_words(const std::vector<std::string>& words);

/// Levenshtein distance, for suggestions.
std::size_t edit_distance(const std::string& a, const std::string& b);

/// Whether llama.cpp has an option of this spelling (dashes in long names), supported by fastkv or not.
bool is_llama_cpp_option(const std::string& spelling);

/// Runs a tool's body: prints the one line of whatever it throws, as "PROGRAM: message", and maps it to the exit
/// status of spec: UsageError and Error invalid_option → 2, cancelled → 130 or 143, everything else → 1.
int run_tool(const char* program, const std::function<int()>& body);

// ---------------------------------------------------------------------------------------------------------------------

namespace detail {
template <class T>
struct ValueOf {
  using type = T;
};
template <class T>
struct ValueOf<std::optional<T>> {
  using type = T;
};

template <class V>
V parse_value(const std::string& text) {
  if constexpr (std::is_same_v<V, std::string>) {
    return text;
  } else if constexpr (std::is_integral_v<V>) {
    const std::int64_t value = parse_integer(text);
    if (value != static_cast<std::int64_t>(static_cast<V>(value))) throw UsageError("too large");
    return static_cast<V>(value);
  } else {
    return static_cast<V>(parse_number(text));
  }
}
}  // namespace detail

template <class T>
void CommandLine::option(const std::string& names, const std::string& value, T& target, const std::string& help) {
  using V = typename detail::ValueOf<T>::type;
  add(names, value, help, [&target](const std::string& text) { target = detail::parse_value<V>(text); });
}

template <class T, class L>
void CommandLine::option(const std::string& names, const std::string& value, T& target, const std::string& help,
                         Limits<L> limits) {
  using V = typename detail::ValueOf<T>::type;
  add(names, value, help, [&target, limits](const std::string& text) {
    const V parsed = detail::parse_value<V>(text);
    if (!(parsed >= static_cast<V>(limits.low) && parsed <= static_cast<V>(limits.high)))
      throw UsageError(limits.words);
    target = parsed;
  });
}

template <class T, class V>
void CommandLine::choice(const std::string& names, T& target, std::vector<std::pair<std::string, V>> words,
                         const std::string& help) {
  std::vector<std::string> visible;
  for (auto& [word, value] : words) {
    if (word.front() == '~') {
      word.erase(0, 1);
    } else {
      visible.push_back(word);
    }
  }
  std::string placeholder;
  for (const std::string& word : visible) placeholder += (placeholder.empty() ? "" : "|") + word;
  add(names, placeholder, help, [&target, words, visible](const std::string& text) {
    for (const auto& [word, value] : words) {
      if (word == text) {
        target = value;
        return;
      }
    }
    throw UsageError(expected_words(visible));
  });
}

}  // namespace fastkv::tools
