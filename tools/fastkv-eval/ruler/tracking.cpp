// RULER's variable tracking: a number goes from one variable to the next, in noise.
#include <set>

#include "fastkv-eval/ruler/tasks.hpp"
#include "fastkv-eval/synthetic/text.hpp"

namespace fastkv::tools {

namespace {

constexpr int kHops = 4;

struct Chain {
  std::string value;
  std::vector<std::string> names, lines;
};

Chain make_chain(Random& random, int letters) {
  Chain chain;
  chain.value = random.number(5);
  std::set<std::string> used = {"SET"};  // the lines' own word
  while (chain.names.size() <= kHops) {
    std::string name = random.letters(letters, 'A');
    if (used.insert(name).second) chain.names.push_back(std::move(name));
  }
  for (std::size_t i = 0; i < chain.names.size(); ++i)
    chain.lines.push_back("SET " + chain.names[i] + " TO " + (i == 0 ? chain.value : chain.names[i - 1]) + ".");
  return chain;
}

std::string question_of(const Chain& chain, const std::vector<int>& depths, std::int64_t size) {
  return "In the text below, lines set variables to a number or to another variable. Follow who gets which "
         "number.\n\n" +
         join(hide(noise(size), chain.lines, depths), "\n") + "\n\nWhich variables have the value " + chain.value +
         " in the end? There are " + std::to_string(chain.names.size()) + " of them.";
}

std::string opening_of(const Chain& chain) {
  return "The " + std::to_string(chain.names.size()) + " variables with the value " + chain.value + " are";
}

}  // namespace

Recipe tracking_recipe(std::string_view, const Haystack&, std::int64_t, Random random) {
  constexpr std::int64_t kExampleSize = 4;
  const Chain example = make_chain(random, 3), chain = make_chain(random, 5);
  const std::vector<int> example_depths = sample_depths(random, example.lines.size());
  const std::vector<int> depths = sample_depths(random, chain.lines.size());
  const std::string shown = question_of(example, example_depths, kExampleSize) + "\n" + opening_of(example) + " " +
                            enumerate(example.names) + ".\n\n";
  return {1, [=](std::int64_t size) {
            RulerSample sample;
            sample.references = chain.names;
            sample.input = shown + question_of(chain, depths, size);
            sample.opening = opening_of(chain);
            return sample;
          }};
}

}  // namespace fastkv::tools
