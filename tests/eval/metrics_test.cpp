// The scores of LongBench and RULER: values by hand, corner cases of the definitions, and what Python and the packages
// rouge and rapidfuzz give (metrics_golden.json, from make_golden.py).
#include "fastkv-eval/metrics.hpp"

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "fastkv-eval/python_text.hpp"
#include "fastkv/error.hpp"

namespace fastkv::tools {
namespace {

using Json = nlohmann::json;

const Json& golden() {
  static const Json read =
      Json::parse(std::ifstream(std::string(FASTKV_SOURCE_DIR) + "/tests/eval/metrics_golden.json", std::ios::binary));
  return read;
}

TEST(Metrics, AgreeWithThePackages) {
  ASSERT_EQ(golden()["pairs"].size(), 300u);
  int ratios = 0;
  for (const Json& pair : golden()["pairs"]) {
    const std::string prediction = pair["prediction"], reference = pair["reference"];
    // Sums of at most a few hundred terms of the same small integers.
    EXPECT_NEAR(qa_f1(prediction, reference), pair["qa_f1"].get<double>(), 1e-14) << pair;
    EXPECT_NEAR(rouge_l(prediction, reference), pair["rouge_l"].get<double>(), 1e-14) << pair;
    // The line rule comes before the ratio: these texts have lines and "#" nowhere.
    if (prediction.find('\n') != prediction.npos) continue;
    EXPECT_NEAR(code_similarity(prediction, reference), pair["ratio"].get<double>(), 1e-14) << pair;
    ++ratios;
  }
  EXPECT_GT(ratios, 100);
}

TEST(PythonText, LowersEveryLetter) {
  const auto cased = code_points(golden()["cased"].get<std::string>());
  EXPECT_GT(cased.size(), 1400u);
  EXPECT_EQ(lower(cased), code_points(golden()["lowered"].get<std::string>()));
  const std::u32string others = U"aß\u0131\u0149中\U0001F600 \u00A0[{~";
  EXPECT_EQ(lower(others), others);
}

TEST(PythonText, ReadsUtf8) {
  EXPECT_EQ(code_points("aé中\xF0\x9F\x98\x80"), U"aé中\U0001F600");
  // Cut off, overlong, a surrogate, too large, a lone continuation: each byte for itself.
  EXPECT_EQ(code_points("\xE4\xB8"), U"\uFFFD\uFFFD");
  EXPECT_EQ(code_points("\xC0\xAF|\xE0\x80\xAF"), U"\uFFFD\uFFFD|\uFFFD\uFFFD\uFFFD");
  EXPECT_EQ(code_points("\xED\xA0\x80"), U"\uFFFD\uFFFD\uFFFD");
  EXPECT_EQ(code_points("\xF4\x90\x80\x80x\x80"), U"\uFFFD\uFFFD\uFFFD\uFFFDx\uFFFD");
}

TEST(PythonText, SplitsAtWhiteSpace) {
  EXPECT_EQ(split_words(U" a\u00A0b\t\n\u3000c\x1F").size(), 3u);
  EXPECT_TRUE(split_words(U" \r\n").empty());
  EXPECT_FALSE(is_space(U'\u200B')) << "the zero-width space is none";
}

TEST(QaF1, ByHand) {
  EXPECT_EQ(qa_f1("Paris", "Paris"), 1);
  EXPECT_EQ(qa_f1("The capital is Paris.", "paris"), 0.5) << "1 of 3 words, 1 of 1";
  EXPECT_EQ(qa_f1("rose rose rose", "rose rose"), 0.8) << "a bag counts: 2 of 3, 2 of 2";
  EXPECT_EQ(qa_f1("London", "Paris"), 0);
}

TEST(QaF1, Corners) {
  EXPECT_EQ(qa_f1("", "Paris"), 0);
  EXPECT_EQ(qa_f1("", ""), 0) << "nothing in common, however equal";
  EXPECT_EQ(qa_f1("The.", "a!"), 0) << "articles and punctuation only";
  EXPECT_EQ(qa_f1("ÉCOLE", "école"), 1);
  EXPECT_EQ(qa_f1("well-known", "well known"), 0) << "punctuation goes without a trace";
  EXPECT_EQ(qa_f1("U.S.A.", "usa"), 1);
  EXPECT_EQ(qa_f1("“the” river", "“ ” river"), 1) << "curly quotes stay, the article between them goes";
  EXPECT_EQ(qa_f1("thé", "th"), 0) << "é is a letter";
  EXPECT_EQ(qa_f1("an_a", "ana"), 1) << "the underscore goes first";
  EXPECT_EQ(qa_f1("a—the—b", "— —b"), 1) << "a long dash parts words";
}

TEST(RougeL, ByHand) {
  // Three of three words, three of five: 2·1·0.6/1.6.
  EXPECT_NEAR(rouge_l("police ended fire", "police ended the great fire"), 0.75, 1e-8);
  // Over sentences: w1 w2 from one, w1 w3 w5 from the other; the union has 4 of 5 words, the candidate 8 distinct ones.
  EXPECT_NEAR(rouge_l("w1 w2 w6 w7 w8. w1 w3 w8 w9 w5", "w1 w2 w3 w4 w5"), 2 * 0.8 * 0.5 / 1.3, 1e-8);
  EXPECT_NEAR(rouge_l("a a a", "a"), 1, 1e-8) << "distinct words";
  EXPECT_NEAR(rouge_l("b a", "a b"), 0.5, 1e-8) << "order counts inside a sentence";
  EXPECT_NEAR(rouge_l("b. a", "a. b"), 1, 1e-8) << "but not of sentences";
}

TEST(RougeL, Corners) {
  EXPECT_EQ(rouge_l("", "a"), 0);
  EXPECT_EQ(rouge_l("a", ""), 0);
  EXPECT_EQ(rouge_l("...", "a"), 0) << "no sentence";
  EXPECT_EQ(rouge_l("A", "a"), 0) << "case counts";
  EXPECT_EQ(rouge_l("a,", "a"), 0) << "so does punctuation";
  EXPECT_NEAR(rouge_l("a. ", "a"), 2 * 0.5 / 1.5, 1e-8) << "white space after the full stop is a word";
  EXPECT_NEAR(rouge_l("a. ", "a. b. "), 2 * 1 * (2. / 3) / (5. / 3), 1e-8) << "and a common one";
}

TEST(Classification, ByHand) {
  const std::vector<std::string> classes = {"Food", "City", "Other location", "location"};
  EXPECT_EQ(classification("City", "City", classes), 1);
  EXPECT_EQ(classification("City or Food", "City", classes), 0.5);
  EXPECT_EQ(classification("Food", "City", classes), 0);
  EXPECT_EQ(classification("", "City", classes), 0);
  EXPECT_EQ(classification("Other location", "Other location", classes), 1) << "a part of the right name is struck out";
  EXPECT_EQ(classification("Other location", "location", classes), 0.5) << "a longer name is not";
  EXPECT_EQ(classification("city", "City", classes), 0) << "case counts";
  EXPECT_EQ(classification("Cité", "Cité", {"Cité"}), 1);
}

TEST(Classification, SkipsTheNameAfterEachStruckOut) {
  // Both "a b" and "b" are parts of "a b c"; "b" moves up and is not looked at.
  EXPECT_EQ(classification("a b c", "a b c", {"a b", "b", "a b c"}), 0.5);
  EXPECT_EQ(classification("a b c", "a b c", {"a b", "a b c", "b"}), 1)
      << "the right name is skipped instead, \"b\" looked at";
  EXPECT_EQ(classification("a b c", "a b c", {"a", "b", "c", "a b c"}), 0.5) << "a and c go, b stays";
  EXPECT_EQ(classification("x y", "x y", {"x y", "x", "x"}), 0.5) << "of equal names the first goes";
}

TEST(Numbers, RetrievalAndCount) {
  EXPECT_EQ(count("There are 12.", "12"), 1);
  EXPECT_EQ(count("12 or 13 or 12 or 9", "12"), 0.5);
  EXPECT_EQ(count("none", "12"), 0);
  EXPECT_EQ(count("", "12"), 0);
  EXPECT_EQ(count("1.2", "12"), 0) << "two numbers";
  EXPECT_EQ(count("012", "12"), 0) << "compared as text";
  EXPECT_EQ(retrieval("Paragraph 5", "Paragraph 5"), 1);
  EXPECT_EQ(retrieval("15, 5", "Paragraph 5"), 0.5);
  EXPECT_EQ(retrieval("Paragraph five", "Paragraph 5"), 0);
  EXPECT_EQ(retrieval("7", "Paragraph x of Paragraph 7 and 8"), 1);
  try {
    retrieval("5", "5");
    ADD_FAILURE() << "no paragraph";
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "expected an answer \"Paragraph N\", found \"5\"");
  }
}

TEST(CodeSimilarity, ByHand) {
  EXPECT_EQ(code_similarity("return x;", "return x;"), 1);
  EXPECT_EQ(code_similarity("abcd", "abxd"), 0.75) << "one dropped, one put in, of 8";
  EXPECT_EQ(code_similarity("", ""), 1);
  EXPECT_EQ(code_similarity("", "x"), 0);
  EXPECT_EQ(code_similarity("é", "e"), 0) << "a character is one, whatever its bytes";
}

TEST(CodeSimilarity, TakesTheFirstLineOfCode) {
  EXPECT_EQ(code_similarity("\n\nx = 1\ny = 2", "x = 1"), 1) << "newlines at the start go";
  EXPECT_EQ(code_similarity("```python\n# a comment\n// another\nx = 1\ny", "x = 1"), 1);
  EXPECT_EQ(code_similarity("`x`", "x"), 0) << "no line is left";
  EXPECT_EQ(code_similarity("# c\n\nx", "x"), 0) << "an empty line after the first counts as one of code";
  EXPECT_EQ(code_similarity("a / b", "a / b"), 1);
}

TEST(FirstLine, AfterNewlines) {
  EXPECT_EQ(first_line("\n\n Paris\nQuestion"), " Paris");
  EXPECT_EQ(first_line("Paris"), "Paris");
  EXPECT_EQ(first_line("\n\n"), "");
  EXPECT_EQ(first_line(""), "");
}

TEST(StringMatch, ShareOfReferences) {
  EXPECT_EQ(string_match("The numbers are 12, 34.", {"12", "34", "56", "78"}), 0.5);
  EXPECT_EQ(string_match("the KEY is École", {"key", "éCOLE"}), 1) << "in any case";
  EXPECT_EQ(string_match("1234", {"23"}), 1) << "inside a word";
  EXPECT_EQ(string_match("", {"x"}), 0);
  EXPECT_EQ(string_match("x", {}), 0);
  EXPECT_EQ(string_match_any("b", {"a", "B"}), 1);
  EXPECT_EQ(string_match_any("c", {"a", "b"}), 0);
}

TEST(Score, NamesAllMetrics) {
  EXPECT_EQ(score(Metric::qa_f1, "the x", "X"), 1);
  EXPECT_NEAR(score(Metric::rouge_l, "x", "x"), 1, 1e-8);
  EXPECT_EQ(score(Metric::classification, "x", "x", {"x"}), 1);
  EXPECT_EQ(score(Metric::retrieval, "3", "Paragraph 3"), 1);
  EXPECT_EQ(score(Metric::count, "3", "3"), 1);
  EXPECT_EQ(score(Metric::code_similarity, "x", "x"), 1);
}

}  // namespace
}  // namespace fastkv::tools
