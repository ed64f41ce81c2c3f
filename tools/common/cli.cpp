// The command line of every tool: the normaliser that runs before CLI11, parsing, --help.
#include "common/cli.hpp"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cctype>
#include <cstdio>
#include <map>
#include <set>

#include "fastkv/engine.hpp"

namespace fastkv::tools {

namespace {

/// `_` → `-` in the name of a long option; single-dash spellings stay as they are.
std::string canonical_dashes(std::string name) {
  if (name.rfind("--", 0) == 0) std::replace(name.begin(), name.end(), '_', '-');
  return name;
}

std::string environment_name(const std::string& long_name) {
  std::string name = "FASTKV_ARG_";
  for (char c : long_name.substr(2)) name += c == '-' ? '_' : static_cast<char>(std::toupper(c));
  return name;
}

bool parse_switch(const std::string& text) {
  for (const char* yes : {"true", "1", "on", "yes"}) {
    if (text == yes) return true;
  }
  for (const char* no : {"false", "0", "off", "no"}) {
    if (text == no) return false;
  }
  throw UsageError("expected true or false");
}

struct Declared {
  std::string name;                  // the first long spelling; "--model"
  std::vector<std::string> visible;  // spellings in --help, as written
  std::string value, help, group;
  bool is_switch = false, repeated = false, hidden = false;
  std::function<std::string(const std::string&)> refusal;
  CommandLine::Setter set;
};

struct Positional {
  std::string name, help;
  std::string* target;
  bool required;
};

struct Spelling {
  std::size_t option;
  bool negated;
};

}  // namespace

std::size_t edit_distance(const std::string& a, const std::string& b) {
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t substituted = diagonal + (a[i - 1] != b[j - 1]);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, substituted});
    }
  }
  return row.back();
}

std::int64_t parse_integer(const std::string& text) {
  std::int64_t value = 0;
  const char* begin = text.data() + (text.size() > 1 && text[0] == '+' ? 1 : 0);
  const auto [end, error] = std::from_chars(begin, text.data() + text.size(), value);
  if (error == std::errc::result_out_of_range) throw UsageError("too large");
  if (error != std::errc() || end != text.data() + text.size()) throw UsageError("expected an integer");
  return value;
}

double parse_number(const std::string& text) {
  double value = 0;
  const char* begin = text.data() + (text.size() > 1 && text[0] == '+' ? 1 : 0);
  const auto [end, error] = std::from_chars(begin, text.data() + text.size(), value);
  if (error == std::errc::result_out_of_range) throw UsageError("too large or too small");
  if (error != std::errc() || end != text.data() + text.size()) throw UsageError("expected a number");
  return value;
}

std::string expected_words(const std::vector<std::string>& words) {
  std::string text = "expected ";
  for (std::size_t i = 0; i < words.size(); ++i) {
    if (i) text += i + 1 == words.size() ? " or " : ", ";
    text += words[i];
  }
  return text;
}

struct CommandLine::Impl {
  std::string program, usage, summary, group = "Options";
  std::vector<Declared> options;
  std::map<std::string, Spelling> spellings;
  std::vector<Positional> positionals;
  std::optional<std::pair<Positional, std::vector<std::string>*>> rest;  // any number of them
  std::set<std::string> given;
  bool help = false, version = false;

  Declared& declare(const std::string& names) {
    Declared option;
    option.group = group;
    for (std::size_t begin = 0; begin <= names.size();) {
      const std::size_t end = std::min(names.find(',', begin), names.size());
      std::string name = names.substr(begin, end - begin);
      begin = end + 1;
      bool negated = false, hidden = false;
      for (; name.front() == '!' || name.front() == '~'; name.erase(0, 1))
        (name.front() == '!' ? negated : hidden) = true;
      name = canonical_dashes(name);
      if (option.name.empty() && !negated && name.rfind("--", 0) == 0) option.name = name;
      if (!hidden) option.visible.push_back(name);
      spellings[name] = {options.size(), negated};
    }
    option.hidden = group.empty() || option.visible.empty();
    options.push_back(std::move(option));
    return options.back();
  }

  [[noreturn]] void unknown(const std::string& spelled) const {
    if (is_llama_cpp_option(spelled)) {
      throw UsageError(spelled + " is a llama.cpp option that fastkv does not support");
    }
    std::string nearest;
    std::size_t distance = spelled.rfind("--", 0) == 0 ? 4 : 2;  // of short options only the closest are worth naming
    for (const auto& [name, spelling] : spellings) {
      const Declared& option = options[spelling.option];
      const bool shown = std::find(option.visible.begin(), option.visible.end(), name) != option.visible.end();
      if (!shown || option.hidden || option.refusal) continue;
      // a forgotten tail (--reten) is nearer than any misspelling
      const bool prefix = spelled.size() >= 5 && name.rfind(spelled, 0) == 0;
      const std::size_t d = prefix ? 0 : edit_distance(spelled, name);
      if (d < distance && d * 2 < spelled.size()) distance = d, nearest = name;
    }
    throw UsageError("unknown option " + spelled +
                     (nearest.empty() ? "; see --help" : "; did you mean " + nearest + "?"));
  }
};

CommandLine::CommandLine(std::string program, std::string usage, std::string summary) : impl_(new Impl) {
  impl_->program = std::move(program);
  impl_->usage = std::move(usage);
  impl_->summary = std::move(summary);
  flag("-h,--help,~--usage", impl_->help, "show this help");
  flag("--version", impl_->version, "show version, compiler, instruction sets and GEMM library");
}

CommandLine::~CommandLine() = default;

void CommandLine::group(std::string heading) { impl_->group = std::move(heading); }

void CommandLine::add(const std::string& names, const std::string& value, const std::string& help, Setter set) {
  Declared& option = impl_->declare(names);
  option.value = value;
  option.help = help;
  option.set = std::move(set);
}

void CommandLine::add_repeated(const std::string& names, const std::string& value, const std::string& help,
                               Setter set) {
  add(names, value, help, std::move(set));
  impl_->options.back().repeated = true;
}

void CommandLine::flag(const std::string& names, const std::string& help, std::function<void(bool)> set) {
  add(names, "", help, [set = std::move(set)](const std::string& text) { set(parse_switch(text)); });
  impl_->options.back().is_switch = true;
}

void CommandLine::flag(const std::string& names, bool& target, const std::string& help) {
  flag(names, help, [&target](bool on) { target = on; });
}

void CommandLine::flag(const std::string& names, std::optional<bool>& target, const std::string& help) {
  flag(names, help, [&target](bool on) { target = on; });
}

void CommandLine::refuse(const std::string& names, bool takes_value,
                         std::function<std::string(const std::string&)> message) {
  Declared& option = impl_->declare(names);
  option.hidden = true;
  option.is_switch = !takes_value;
  option.refusal = std::move(message);
}

void CommandLine::positional(const std::string& name, const std::string& help, std::string& target, bool required) {
  impl_->positionals.push_back({name, help, &target, required});
}

void CommandLine::positionals(const std::string& name, const std::string& help, std::vector<std::string>& targets) {
  impl_->rest.emplace(Positional{name, help, nullptr, false}, &targets);
}

bool CommandLine::given(const std::string& name) const { return impl_->given.count(name) > 0; }

std::vector<std::string> CommandLine::normalise(const std::vector<std::string>& arguments) const {
  std::vector<std::string> out;
  bool only_positionals = false;
  std::size_t n_positionals = 0;
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    const std::string& argument = arguments[i];
    if (only_positionals || argument.size() < 2 || argument[0] != '-') {
      if (n_positionals++ >= impl_->positionals.size() && !impl_->rest)
        throw UsageError("unexpected argument \"" + argument + "\"");
      out.push_back(argument);
      continue;
    }
    if (argument == "--") {
      only_positionals = true;
      out.push_back(argument);
      continue;
    }
    const std::size_t equals = argument.find('=');
    const std::string spelled = canonical_dashes(argument.substr(0, equals));
    const auto found = impl_->spellings.find(spelled);
    if (found == impl_->spellings.end()) impl_->unknown(spelled);
    const Declared& option = impl_->options[found->second.option];
    if (option.refusal) throw UsageError(option.refusal(spelled));

    std::string value;
    if (option.is_switch) {
      value = equals == std::string::npos ? "true" : argument.substr(equals + 1);
      if (found->second.negated) value = parse_switch(value) ? "false" : "true";
    } else if (equals != std::string::npos) {
      value = argument.substr(equals + 1);
    } else {
      if (++i == arguments.size()) throw UsageError(spelled + " needs a value");
      value = arguments[i];
    }
    // CLI11 takes "--name=" for a missing value, so an empty one travels as an argument of its own.
    if (value.empty()) {
      out.push_back(option.name);
      out.push_back(value);
    } else {
      out.push_back(option.name + "=" + value);
    }
  }
  return out;
}

std::optional<int> CommandLine::parse(int argc, const char* const* argv) {
  std::vector<std::string> arguments = normalise({argv + std::min(argc, 1), argv + argc});
  for (const std::string& argument : arguments) {  // before anything can be found wrong
    if (argument == "--help=true") {
      std::fputs(help().c_str(), stdout);
      return 0;
    }
    if (argument == "--version=true") {
      std::fputs((version_text() + "\n").c_str(), stdout);
      return 0;
    }
    if (argument == "--") break;
  }

  CLI::App app(impl_->summary, impl_->program);
  app.set_help_flag("");
  std::set<std::string> on_command_line;
  for (const std::string& argument : arguments) on_command_line.insert(argument.substr(0, argument.find('=')));
  for (Declared& option : impl_->options) {
    if (option.refusal) continue;
    const auto callback = [this, &option, &on_command_line](const CLI::results_t& values) {
      const bool environment = on_command_line.count(option.name) == 0;
      for (std::size_t i = option.repeated ? 0 : values.size() - 1; i < values.size(); ++i) {
        try {
          option.set(values[i]);
        } catch (const UsageError& error) {
          const std::string source = environment ? environment_name(option.name) + "=" : option.name + " ";
          throw UsageError(source + values[i] + ": " + error.what());
        }
      }
      impl_->given.insert(option.name);
      return true;
    };
    CLI::Option* parsed = app.add_option(option.name, callback);
    parsed->expected(1)->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
    if (option.name != "--help" && option.name != "--version") parsed->envname(environment_name(option.name));
  }
  for (Positional& positional : impl_->positionals) {
    app.add_option(positional.name, *positional.target)->required(positional.required);
  }
  if (impl_->rest) app.add_option(impl_->rest->first.name, *impl_->rest->second);
  try {
    std::reverse(arguments.begin(), arguments.end());  // CLI11 takes them from the back
    app.parse(arguments);
  } catch (const CLI::ParseError& error) {
    throw UsageError(error.what());
  }
  return std::nullopt;
}

std::string CommandLine::help() const {
  constexpr std::size_t kColumn = 36, kWidth = 110;
  std::string text = "usage: " + impl_->program + " " + impl_->usage + "\n" + impl_->summary + "\n";
  const auto entry = [&](std::string left, const std::string& right) {
    left = "  " + left;
    if (left.size() + 2 > kColumn) {
      text += left + "\n";
      left.clear();
    }
    left.resize(kColumn, ' ');
    std::size_t column = left.size();
    text += left;
    for (std::size_t begin = 0; begin < right.size();) {
      const std::size_t end = std::min(right.find(' ', begin), right.size());
      if (column + end - begin > kWidth) {
        text.back() = '\n';
        text += std::string(kColumn, ' ');
        column = kColumn;
      }
      text += right.substr(begin, end - begin) + " ";
      column += end - begin + 1;
      begin = end + 1;
    }
    text.back() = '\n';
  };
  if (!impl_->positionals.empty() || impl_->rest) text += "\nArguments:\n";
  for (const Positional& positional : impl_->positionals) entry(positional.name, positional.help);
  if (impl_->rest) entry(impl_->rest->first.name, impl_->rest->first.help);
  std::vector<std::string> groups;
  for (const Declared& option : impl_->options) {
    if (!option.hidden && std::find(groups.begin(), groups.end(), option.group) == groups.end()) {
      groups.push_back(option.group);
    }
  }
  std::rotate(groups.begin(), groups.begin() + 1, groups.end());  // --help and --version last
  for (const std::string& group : groups) {
    text += "\n" + group + ":\n";
    for (const Declared& option : impl_->options) {
      if (option.hidden || option.group != group) continue;
      std::string left;
      for (const std::string& name : option.visible) left += (left.empty() ? "" : ", ") + name;
      entry(left + (option.value.empty() ? "" : " " + option.value), option.help);
    }
  }
  return text +
         "\nEvery option can be set in the environment: FASTKV_ARG_TSP_RATE=0.3 is --tsp-rate 0.3; the command line "
         "wins.\n";
}

}  // namespace fastkv::tools
