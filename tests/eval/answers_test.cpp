// Tables of answers' scores.
#include "fastkv-eval/answers.hpp"

#include <gtest/gtest.h>

namespace fastkv::tools {
namespace {

TEST(ScoreTable, MeansPerGroupInTheOrderOfAppearance) {
  const std::vector<OrderedJson> examples = {
      {{"task", "b"}, {"method", "full"}, {"depth", 10}, {"score", 1}},
      {{"task", "b"}, {"method", "fastkv"}, {"depth", 10}, {"score", 0}},
      {{"task", "b"}, {"method", "full"}, {"depth", 20}, {"score", 0.5}},
      {{"task", "a"}, {"method", "full"}, {"depth", 10}, {"score", 0.25}},
      {{"task", "c"}, {"method", "full"}, {"depth", 10}},  // without a score
  };
  const auto [scores, text] = score_table(examples, {"task"});
  ASSERT_EQ(scores.size(), 3u);
  EXPECT_EQ(scores[0],
            (OrderedJson{
                {"task", "b"}, {"method", "full"}, {"n", 2}, {"score", {{"mean", 75.0}, {"standard_error", 25.0}}}}));
  EXPECT_EQ(scores[1]["method"], "fastkv");
  EXPECT_EQ(scores[2]["task"], "a");
  EXPECT_TRUE(scores[2]["score"]["standard_error"].is_null());
  EXPECT_NE(text.find("75.0 ± 25.0"), std::string::npos) << text;
  EXPECT_EQ(score_table(examples, {"task", "depth"}).first.size(), 4u);
  EXPECT_TRUE(score_table({}, {"task"}).first.empty());
}

}  // namespace
}  // namespace fastkv::tools
