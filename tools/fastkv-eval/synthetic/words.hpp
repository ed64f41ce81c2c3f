// The word lists that synthetic questions are made of.
#pragma once

#include <set>
#include <string>
#include <vector>

#include "fastkv-eval/synthetic/random.hpp"

namespace fastkv::tools {

/// Things, places and people ("lantern", "harbour", "weaver").
const std::vector<std::string>& things();
const std::vector<std::string>& places();
const std::vector<std::string>& people();
const std::vector<std::string>& adjectives();
/// Verbs in the past tense that take a thing as their object ("carried").
const std::vector<std::string>& verbs();

/// Different words: first those of all lists in random order, then pairs of them ("amber-lantern"), 100,000 and more.
class WordStream {
 public:
  explicit WordStream(Random random);
  std::string next();

 private:
  Random random_;
  std::vector<std::string> words_;
  std::set<std::string> pairs_;  ///< handed out
  std::size_t used_ = 0;
};

/// Different keys of an adjective and a thing ("amber-lantern"), later with a place ("amber-lantern-harbour").
class KeyStream {
 public:
  explicit KeyStream(Random random) : random_(random) {}
  std::string next();

 private:
  Random random_;
  std::set<std::string> keys_;  ///< handed out
};

}  // namespace fastkv::tools
