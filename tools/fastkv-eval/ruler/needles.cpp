// RULER's needle tasks: notes that give a key a value, hidden in noise, in a text or among other notes.
#include <set>

#include "fastkv-eval/ruler/tasks.hpp"
#include "fastkv-eval/synthetic/text.hpp"
#include "fastkv-eval/synthetic/words.hpp"

namespace fastkv::tools {

namespace {

enum class Hay { noise, text, needles };

struct Shape {
  std::string_view task;
  Hay hay;
  bool uuid_keys, uuid_values;
  std::size_t keys, values, asked;  ///< keys hidden, values of each key, keys asked for
};

constexpr Shape shapes[] = {
    {"niah_single_1", Hay::noise, false, false, 1, 1, 1},     {"niah_single_2", Hay::text, false, false, 1, 1, 1},
    {"niah_single_3", Hay::text, false, true, 1, 1, 1},       {"niah_multikey_1", Hay::text, false, false, 4, 1, 1},
    {"niah_multikey_2", Hay::needles, false, false, 1, 1, 1}, {"niah_multikey_3", Hay::needles, true, true, 1, 1, 1},
    {"niah_multivalue", Hay::text, false, false, 1, 4, 1},    {"niah_multiquery", Hay::text, false, false, 4, 1, 4}};

const Shape& shape_of(std::string_view task) {
  const Shape* shape = shapes;
  while (shape->task != task) ++shape;
  return *shape;
}

/// Keys and values, each never twice.
class Notes {
 public:
  Notes(const Shape& shape, Random random) : shape_(shape), words_(Random(random.next(), "words")), random_(random) {}

  std::string key() { return shape_.uuid_keys ? random_.uuid() : words_.next(); }
  std::string value() {
    while (true) {
      std::string value = shape_.uuid_values ? random_.uuid() : random_.number(7);
      if (values_.insert(value).second) return value;
    }
  }
  std::string kind() const { return shape_.uuid_values ? "code string" : "code number"; }
  std::string note(const std::string& key, const std::string& value) const {
    return "A " + kind() + " of " + key + " is " + value + ".";
  }

 private:
  const Shape& shape_;
  KeyStream words_;
  Random random_;
  std::set<std::string> values_;
};

}  // namespace

Recipe needle_recipe(std::string_view task, const Haystack& haystack, std::int64_t, Random random) {
  const Shape& shape = shape_of(task);
  Notes notes(shape, Random(random.next(), "notes"));
  std::vector<std::string> keys, needles;
  std::vector<std::vector<std::string>> values;
  for (std::size_t k = 0; k < shape.keys; ++k) {
    keys.push_back(notes.key());
    values.emplace_back();
    for (std::size_t v = 0; v < shape.values; ++v) {
      values.back().push_back(notes.value());
      needles.push_back(notes.note(keys.back(), values.back().back()));
    }
  }
  RulerSample sample;
  for (std::size_t k = 0; k < shape.asked; ++k)
    sample.references.insert(sample.references.end(), values[k].begin(), values[k].end());
  const std::string first = needles.front();
  random.shuffle(needles);
  const std::vector<int> depths = sample_depths(random, needles.size());
  if (sample.references.size() == 1) {
    for (std::size_t i = 0; i < needles.size(); ++i) {
      if (needles[i] == first) sample.depth = depths[i];
    }
  }
  const bool several = sample.references.size() > 1;
  const std::string kind = notes.kind() + (several ? "s" : "");
  const std::string asked = enumerate({keys.begin(), keys.begin() + static_cast<std::ptrdiff_t>(shape.asked)});
  const std::string intro =
      "The text below gives " + notes.kind() + "s. Remember them: a question follows the text.\n\n";
  const std::string question = std::string("\n\n") + (several ? "What are the " : "What is the ") + kind + " of " +
                               asked + " given in the text above?" + (shape.values > 1 ? " Name all four." : "");
  sample.opening = "The " + kind + " of " + asked + " given in the text " + (several ? "are" : "is");
  const Random passage(random.next(), "passage");
  const auto make = [=, &haystack](std::int64_t size) {
    RulerSample made = sample;
    std::vector<std::string> units;
    if (shape.hay == Hay::noise) {
      units = noise(size);
    } else if (shape.hay == Hay::text) {
      units = haystack.passage(passage, static_cast<std::size_t>(size));
    } else {
      Notes others = notes;  // goes on where the needle ended
      for (std::int64_t i = 0; i < size; ++i) {
        const std::string key = others.key();
        units.push_back(others.note(key, others.value()));
      }
    }
    made.input = intro + join(hide(units, needles, depths), shape.hay == Hay::text ? " " : "\n") + question;
    return made;
  };
  return {1, make};
}

}  // namespace fastkv::tools
