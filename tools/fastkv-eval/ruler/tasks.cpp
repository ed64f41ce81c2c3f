// The table of RULER's tasks, and how a question is brought to a length.
#include "fastkv-eval/ruler/tasks.hpp"

#include <algorithm>
#include <cmath>

#include "common/cli.hpp"
#include "common/format.hpp"
#include "fastkv-eval/synthetic/fit.hpp"

namespace fastkv::tools {

const std::vector<RulerTask>& ruler_tasks() {
  static const std::vector<RulerTask> list = {{"niah_single_1", 128, false, needle_recipe},
                                              {"niah_single_2", 128, false, needle_recipe},
                                              {"niah_single_3", 128, false, needle_recipe},
                                              {"niah_multikey_1", 128, false, needle_recipe},
                                              {"niah_multikey_2", 128, false, needle_recipe},
                                              {"niah_multikey_3", 128, false, needle_recipe},
                                              {"niah_multivalue", 128, false, needle_recipe},
                                              {"niah_multiquery", 128, false, needle_recipe},
                                              {"vt", 30, false, tracking_recipe},
                                              {"cwe", 120, false, common_words_recipe},
                                              {"fwe", 50, false, frequent_words_recipe},
                                              {"qa_1", 32, true, nullptr},
                                              {"qa_2", 32, true, nullptr}};
  return list;
}

const RulerTask* find_ruler_task(std::string_view name) {
  const auto found = std::find_if(ruler_tasks().begin(), ruler_tasks().end(),
                                  [&](const RulerTask& task) { return task.name == name; });
  return found == ruler_tasks().end() ? nullptr : &*found;
}

std::vector<int> sample_depths(Random& random, std::size_t count) {
  std::vector<int> depths;
  for (int i = 0; i < 40; ++i) depths.push_back(static_cast<int>(std::lround(100.0 * i / 39)));
  depths = random.sample(depths, count);
  std::sort(depths.begin(), depths.end());
  return depths;
}

std::vector<std::string> hide(const std::vector<std::string>& units, const std::vector<std::string>& needles,
                              const std::vector<int>& depths) {
  std::vector<std::string> all;
  all.reserve(units.size() + needles.size());
  std::size_t next = 0;
  for (std::size_t i = 0; i <= units.size(); ++i) {
    while (next < needles.size() && units.size() * static_cast<std::size_t>(depths[next]) / 100 <= i)
      all.push_back(needles[next++]);
    if (i < units.size()) all.push_back(units[i]);
  }
  return all;
}

std::vector<std::string> noise(std::int64_t count) {
  return std::vector<std::string>(
      static_cast<std::size_t>(count),
      "Snow lay on the roof. A dog slept by the door. The kettle hummed. Nothing happened for a while. Then a bell "
      "rang.");
}

RulerSample generate_sample(const RulerTask& task, const Haystack& haystack, std::int64_t length, std::int64_t index,
                            std::uint64_t seed, const std::function<std::int64_t(const RulerSample&)>& tokens) {
  const std::string name(task.name);
  const Recipe recipe = task.recipe(task.name, haystack, length, Random(seed, name + "/" + std::to_string(index)));
  const std::optional<std::int64_t> size =
      largest_fit(recipe.smallest, length - task.max_tokens, [&](std::int64_t s) { return tokens(recipe.make(s)); });
  if (!size) {
    throw UsageError(format("--lengths %lld: the shortest question of %s takes %lld tokens",
                            static_cast<long long>(length), name.c_str(),
                            static_cast<long long>(tokens(recipe.make(recipe.smallest)) + task.max_tokens)));
  }
  RulerSample sample = recipe.make(*size);
  sample.task = name;
  sample.index = index;
  sample.length = length;
  return sample;
}

}  // namespace fastkv::tools
