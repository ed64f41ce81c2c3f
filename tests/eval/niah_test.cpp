// fastkv-eval niah: where needles are put, what answers score, and the program as a user sees it.
#include <gtest/gtest.h>

#include "eval/small_model.hpp"
#include "fastkv-eval/niah/needle.hpp"
#include "fastkv-eval/synthetic/haystack.hpp"
#include "fastkv-eval/synthetic/text.hpp"

namespace fastkv::test {
namespace {

using tools::Story;

TEST(WordRecall, IsTheShareOfDifferentExpectedWords) {
  const std::string expected = "Row across the lake and the river.";
  EXPECT_EQ(tools::word_recall("You row across the lake and the river.", expected), 1);
  EXPECT_DOUBLE_EQ(tools::word_recall("ROW  across\nthe river", expected), 0.5)
      << "row across the lake and river. — six different words; the last needs its full stop";
  EXPECT_EQ(tools::word_recall("lake, river", expected), 0);
  EXPECT_EQ(tools::word_recall("", expected), 0);
  EXPECT_EQ(tools::word_recall("anything", " "), 0);
  EXPECT_EQ(tools::word_recall("ÉTÉ à\u00a0Paris", "été à paris"), 1) << "letters and spaces of Unicode";
}

TEST(Needles, AnswersArePartsOfTheirSentences) {
  for (const tools::Needle& needle : tools::own_needles()) {
    EXPECT_TRUE(needle.sentence.ends_with(" " + needle.answer)) << needle.sentence;
    EXPECT_TRUE(needle.question.ends_with("?"));
  }
}

class Stories : public ::testing::TestWithParam<const char*> {
 protected:
  std::filesystem::path file_ = fixtures() / GetParam();
};

TEST_P(Stories, NeedlesFollowTheSentenceBeforeTheirDepth) {
  FASTKV_REQUIRE_FILE(file_);
  const Tokenizer tokenizer = Tokenizer::from_file(file_.string());
  const std::string text = tools::join(tools::Haystack().passage(tools::Random(1, "story"), 60), " ");
  const Story story(tokenizer, text);
  ASSERT_GT(story.size(), 500u);
  const std::string needle = "Here it is.";
  std::size_t last = 0;
  for (int depth = 0; depth <= 100; depth += 5) {
    constexpr std::size_t kTokens = 450;
    const std::size_t place = story.place(kTokens, depth), aim = kTokens * static_cast<std::size_t>(depth) / 100;
    EXPECT_LE(place, aim);
    EXPECT_GE(place, last);
    last = place;
    const std::string with = story.with(needle, kTokens, depth);
    const std::size_t at = with.find("\n" + needle + "\n");
    ASSERT_NE(at, std::string::npos);
    const std::string before = with.substr(0, at), behind = with.substr(at + needle.size() + 2);
    const std::string whole = before + behind;
    const std::size_t begin = whole[0] == ' ' ? 1 : 0;  // SentencePiece's space before the first word
    EXPECT_EQ(text.find(whole.substr(begin)), 0u) << "nothing is lost at the seam";
    if (depth == 100) {
      EXPECT_EQ(place, kTokens);
      EXPECT_EQ(behind, "");
    } else if (place > 0) {
      EXPECT_EQ(before.back(), '.');
      EXPECT_EQ(std::count(behind.begin(), behind.begin() + 2, '.'), 0);
      EXPECT_LT(aim - place, 60u) << "a sentence at most";
    } else {
      EXPECT_LE(depth, 10);
    }
  }
  EXPECT_EQ(story.with(needle, 450, 0).find("\n" + needle), 0u);
}

TEST_P(Stories, CutsStayWholeCharacters) {
  FASTKV_REQUIRE_FILE(file_);
  const Tokenizer tokenizer = Tokenizer::from_file(file_.string());
  std::string text;
  for (int i = 0; i < 30; ++i) text += "日本語 🦙 ";
  const Story story(tokenizer, text);
  for (std::size_t tokens = 1; tokens < 40; ++tokens) {
    for (int depth : {0, 50, 100}) EXPECT_NO_THROW(tokenizer.encode(story.with("x.", tokens, depth)));
  }
}

INSTANTIATE_TEST_SUITE_P(, Stories,
                         ::testing::Values("tokenizers/llama3/tokenizer.json", "tokenizers/tekken/tokenizer.json",
                                           "tokenizers/llama2/ggml-vocab-llama-spm.gguf"),
                         [](const auto& info) {
                           const std::filesystem::path path = info.param;
                           return path.parent_path().filename().string();
                         });

class Niah : public OnSmallModel {
 protected:
  Niah() : OnSmallModel("niah") {}
};

TEST_F(Niah, EveryLengthAndDepthUnderEveryMethod) {
  const OrderedJson found =
      result({"--lengths", "600,900", "--depths", "0,50,100", "--samples", "2", "--method", "full,snapkv"});
  ASSERT_EQ(found["examples"].size(), 2u * 3 * 2 * 2);
  for (const OrderedJson& example : found["examples"]) {
    const int length = example["length"], used = example["prompt_tokens"].get<int>() + 30;
    EXPECT_LE(used, length);
    EXPECT_GT(used, length - 8) << "cut to the token";
    EXPECT_LE(example["generated"], 30);
    EXPECT_EQ(example["answer"].get<std::string>().find('\n'), std::string::npos);
    const int place = example["place"];
    if (example["depth"] == 0) EXPECT_EQ(place, 0);
    if (example["depth"] == 100) EXPECT_GT(place, length - 250);
  }
  EXPECT_EQ(found["examples"][0]["key"], "600/0/0/full");
  ASSERT_EQ(found["scores"].size(), 2u * 3 * 2 + 2);
  EXPECT_EQ(found["scores"][3]["method"], "snapkv");
  EXPECT_EQ(found["scores"][3]["depth"], 50);
  EXPECT_EQ(found["scores"][3]["n"], 2);
  EXPECT_EQ(found["scores"][12]["n"], 12);
  EXPECT_FALSE(found["scores"][12].contains("depth"));
}

TEST_F(Niah, OwnTextNeedleAndQuestion) {
  const std::string haystack = scratch_.write("text", "The sun was warm. The dog ran home. Tom was glad. ");
  // an answer that is sure to score: words that any tale has
  const OrderedJson found =
      result({"--lengths", "500", "--depths", "50", "--haystack", haystack, "--needle", "Lily had a red ball.",
              "--question", "Once upon a time, there was", "--answer", "a the and was xyzzy", "--method", "full"});
  const OrderedJson& example = found["examples"][0];
  const double score = example["score"];
  EXPECT_DOUBLE_EQ(score, tools::word_recall(example["answer"].get<std::string>(), "a the and was xyzzy"));
  EXPECT_EQ(found["settings"]["needle"], "Lily had a red ball.");
  EXPECT_EQ(found["settings"]["haystack"], haystack);
}

TEST_F(Niah, HeatMapsAreOnStdout) {
  const Outcome outcome = run({"--lengths", "600,900", "--depths", "0-100+50", "--method", "full,fastkv"});
  ASSERT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_EQ(outcome.out.find("full: depth  "), 0u) << outcome.out;
  EXPECT_NE(outcome.out.find("\nfastkv: depth  "), std::string::npos);
  EXPECT_NE(outcome.out.find("\n50 %  "), std::string::npos);
  EXPECT_NE(outcome.out.find("\nmean  "), std::string::npos);
}

TEST_F(Niah, Refusals) {
  EXPECT_EQ(refusal({"--needle", "x"}, 2), "fastkv-eval: --needle, --question and --answer go together\n");
  EXPECT_EQ(refusal({"--depths", "50,101"}, 2), "fastkv-eval: --depths 50,101: must be 0 to 100\n");
  EXPECT_EQ(refusal({"--lengths", "9,9"}, 2), "fastkv-eval: --lengths 9,9: 9 is named twice\n");
  EXPECT_EQ(refusal({"--lengths", "50"}, 2).find("fastkv-eval: --lengths 50: needle and question alone take "), 0u);
  EXPECT_EQ(refusal({"--haystack", "none"}, 1), "fastkv-eval: cannot open none: No such file or directory\n");
  EXPECT_EQ(refusal({"--lengths", "20000", "--depths", "0"}, 1).find("fastkv-eval: --lengths 20000: prompt"), 0u);
}

}  // namespace
}  // namespace fastkv::test
