// LongBench's data sets.
#include "fastkv-eval/longbench/sets.hpp"

#include <algorithm>

#include "common/cli.hpp"
#include "common/lists.hpp"

namespace fastkv::tools {

namespace {

/// In LongBench's order.
const std::vector<DataSet>& all_sets() {
  using enum Metric;
  constexpr bool kChat = true, kPlain = false, kFirstLine = true, kWhole = false, kInE = true;
  static const std::vector<DataSet> sets = {
      {"narrativeqa", qa_f1, kChat, kWhole},
      {"qasper", qa_f1, kChat, kWhole, kInE},
      {"multifieldqa_en", qa_f1, kChat, kWhole, kInE},
      {"multifieldqa_zh", {}, kChat, kWhole},
      {"hotpotqa", qa_f1, kChat, kWhole, kInE},
      {"2wikimqa", qa_f1, kChat, kWhole, kInE},
      {"musique", qa_f1, kChat, kWhole},
      {"dureader", {}, kChat, kWhole},
      {"gov_report", rouge_l, kChat, kWhole, kInE},
      {"qmsum", rouge_l, kChat, kWhole},
      {"multi_news", rouge_l, kChat, kWhole, kInE},
      {"vcsum", {}, kChat, kWhole},
      {"trec", classification, kPlain, kFirstLine, kInE},
      {"triviaqa", qa_f1, kPlain, kFirstLine, kInE},
      {"samsum", rouge_l, kPlain, kFirstLine, kInE},
      {"lsht", {}, kPlain, kFirstLine},
      {"passage_count", count, kChat, kWhole, kInE},
      {"passage_retrieval_en", retrieval, kChat, kWhole, kInE},
      {"passage_retrieval_zh", {}, kChat, kWhole},
      {"lcc", code_similarity, kPlain, kWhole, kInE},
      {"repobench-p", code_similarity, kPlain, kWhole, kInE},
  };
  return sets;
}

/// The sets, and those of LongBench-E after them.
std::vector<DataSet> every_set() {
  std::vector<DataSet> sets = all_sets();
  for (const DataSet& set : all_sets()) {
    if (!set.in_e) continue;
    sets.push_back(set);
    sets.back().e = true;
  }
  return sets;
}

DataSet parse_data_set(const std::string& title) {
  std::string nearest;
  std::size_t distance = title.size() / 2 + 1;
  for (const DataSet& set : every_set()) {
    if (set.title() == title) return set;
    const std::size_t d = edit_distance(title, set.title());
    if (d < distance) distance = d, nearest = set.title();
  }
  throw UsageError("no data set \"" + title + "\" in LongBench" +
                   (nearest.empty() ? "" : "; did you mean " + nearest + "?"));
}

}  // namespace

DataSets parse_data_sets(const std::string& list) {
  DataSets chosen;
  if (list == "all" || list == "e" || list.empty()) {
    for (const DataSet& set : every_set())
      if (set.e == (list == "e") && (set.metric || list == "all")) chosen.sets.push_back(set);
    return chosen;
  }
  chosen.named = true;
  for (const std::string& title : split_list(list)) {
    for (const DataSet& other : chosen.sets)
      if (other.title() == title) throw UsageError(title + " is named twice");
    chosen.sets.push_back(parse_data_set(title));
  }
  return chosen;
}

std::string length_class(std::int64_t length) { return length < 4000 ? "0-4k" : length < 8000 ? "4-8k" : "8k+"; }

double score(const DataSet& set, const std::string& prediction, const std::vector<std::string>& answers,
             const std::vector<std::string>& classes) {
  const std::string scored = set.first_line ? first_line(prediction) : prediction;
  double best = 0;
  for (const std::string& answer : answers) best = std::max(best, score(*set.metric, scored, answer, classes));
  return best;
}

}  // namespace fastkv::tools
