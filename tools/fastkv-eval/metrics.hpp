// The scores of LongBench and RULER: one prediction against one reference, 0 to 1.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace fastkv::tools {

/// LongBench's metrics for English and code, as its scorer computes them. Text is UTF-8; bytes that are not are read as
/// U+FFFD.
enum class Metric { qa_f1, rouge_l, classification, retrieval, count, code_similarity };

/// The score of `prediction` against `reference`. `classes`: all class names, for classification only. Throws Error
/// bad_input where retrieval's reference names no paragraph.
double score(Metric metric, std::string_view prediction, std::string_view reference,
             const std::vector<std::string>& classes = {});

/// F1 of the bags of words: lower case, no ASCII punctuation, no articles; 0 without a common word.
double qa_f1(std::string_view prediction, std::string_view reference);

/// ROUGE-L as the package `rouge` 1.0.1 computes it at summary level, case and punctuation as they are. Sentences are
/// the pieces between full stops; words that lie on a longest common subsequence of any two sentences count once.
/// A piece of white space is a sentence of one empty word (a text that ends in ". " has one). 0 where either is empty.
/// Unlike there, sentences of a thousand words do not exceed a limit of recursion, for which LongBench gives 0.
double rouge_l(std::string_view prediction, std::string_view reference);

/// 1 over the number of class names found in the prediction, if the right one is among them; else 0. Names that are
/// part of the right name do not count, except that LongBench skips the name after each one that it strikes out.
double classification(std::string_view prediction, std::string_view reference, const std::vector<std::string>& classes);

/// The share of the numbers in the prediction that equal the N of "Paragraph N" in the reference; 0 without a number.
double retrieval(std::string_view prediction, std::string_view reference);

/// The share of the numbers in the prediction that equal the reference; 0 without a number.
double count(std::string_view prediction, std::string_view reference);

/// 1 − (insertions and deletions) / (sum of lengths) between the first line of the prediction without "`", "#" and
/// "//" (empty if there is none) and the reference, in characters: the ratio of rapidfuzz. LongBench's scorer takes
/// fuzzywuzzy's, rounded to hundredths; without the package python-Levenshtein that one is another, lower measure.
double code_similarity(std::string_view prediction, std::string_view reference);

/// What LongBench scores of its few-shot sets: the first line, after newlines at the start.
std::string first_line(std::string_view prediction);

/// RULER: the share of references that the prediction contains, in any case; of its questions and answers: whether
/// it contains any. 0 without references.
double string_match(std::string_view prediction, const std::vector<std::string>& references);
double string_match_any(std::string_view prediction, const std::vector<std::string>& references);

}  // namespace fastkv::tools
