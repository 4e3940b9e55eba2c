#include "farskip/io/pre_tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace farskip {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

class PreTokenizers : public testing::Test {
 protected:
  void SetUp() override {
    if (!patterns_are_available()) GTEST_SKIP() << "no PCRE2";
  }
  static std::vector<std::string> split(std::vector<PreTokenizerRule> rules,
                                        std::string_view text) {
    const PreTokenizer pre_tokenizer(std::move(rules), "t");
    PreTokenizer::Workspace workspace(pre_tokenizer);
    pre_tokenizer.split("something else before", workspace);
    const auto pieces = pre_tokenizer.split(text, workspace);
    return {pieces.begin(), pieces.end()};
  }
  static std::vector<std::string> split(SplitBehavior behavior, std::string_view text,
                                        bool invert = false) {
    return split({SplitRule{.expression = "-", .behavior = behavior, .invert = invert}}, text);
  }
};

TEST_F(PreTokenizers, WithoutRulesTextIsOnePiece) {
  EXPECT_THAT(split({}, "a b"), ElementsAre("a b"));
  EXPECT_THAT(split({}, ""), IsEmpty());
}

TEST_F(PreTokenizers, BehaviorsSayWhoseAMatchIs) {
  const char* text = "--a--bc-";
  EXPECT_THAT(split(SplitBehavior::isolated, text),
              ElementsAre("-", "-", "a", "-", "-", "bc", "-"));
  EXPECT_THAT(split(SplitBehavior::removed, text), ElementsAre("a", "bc"));
  EXPECT_THAT(split(SplitBehavior::contiguous, text), ElementsAre("--", "a", "--", "bc", "-"));
  EXPECT_THAT(split(SplitBehavior::merged_with_previous, text),
              ElementsAre("-", "-", "a-", "-", "bc-"));
  EXPECT_THAT(split(SplitBehavior::merged_with_next, text),
              ElementsAre("-", "-a", "-", "-bc", "-"));
}

TEST_F(PreTokenizers, InvertedTheRestIsTheMatch) {
  EXPECT_THAT(split(SplitBehavior::removed, "a-b--", true), ElementsAre("-", "-", "-"));
  EXPECT_THAT(split(SplitBehavior::merged_with_next, "a-b", true), ElementsAre("a-", "b"));
}

TEST_F(PreTokenizers, EmptyMatchesCutWithoutLeavingPieces) {
  EXPECT_THAT(split({SplitRule{.expression = "(?=b)"}}, "abcb"), ElementsAre("a", "bc", "b"));
}

TEST_F(PreTokenizers, RulesActInTurnOnEachPieceAlone) {
  // The look-ahead of the second sees no further than the piece of the first.
  EXPECT_THAT(split({SplitRule{.expression = "b"}, SplitRule{.expression = "a(?!b)"}}, "aab"),
              ElementsAre("a", "a", "b"));
  EXPECT_THAT(
      split({SplitRule{.expression = ".", .is_literal = true}, SplitRule{.expression = "a"}},
            "xa.a"),
      ElementsAre("x", "a", ".", "a"));
}

TEST_F(PreTokenizers, SpacesGoInFrontOfPiecesThatHaveNone) {
  EXPECT_THAT(split({SplitRule{.expression = "-"}, PrefixSpaceRule{}}, "a- b"),
              ElementsAre(" a", " -", " b"));
  EXPECT_THAT(split({PrefixSpaceRule{}, SplitRule{.expression = "a"}}, "ba"),
              ElementsAre(" b", "a"));
  EXPECT_THAT(split({PrefixSpaceRule{}}, ""), IsEmpty());
}

}  // namespace
}  // namespace farskip
