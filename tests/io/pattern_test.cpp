#include "farskip/io/pattern.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "farskip/base/error.h"
#include "farskip/io/pattern_dialect.h"

namespace farskip {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class Patterns : public testing::Test {
 protected:
  void SetUp() override {
    if (!patterns_are_available()) GTEST_SKIP() << "no PCRE2";
  }
  static std::vector<std::string> matches(const std::string& expression, std::string_view text) {
    return all(Pattern::regex(expression, "t"), text);
  }
  static std::vector<std::string> all(const Pattern& pattern, std::string_view text) {
    PatternMatches matches(pattern);
    matches.search(text);
    std::vector<std::string> found;
    while (const auto range = matches.next()) {
      found.emplace_back(text.substr(range->begin, range->end - range->begin));
    }
    EXPECT_FALSE(matches.next()) << "nothing comes behind the last";
    return found;
  }
  static std::string refusal(const std::string& expression) {
    try {
      Pattern::regex(expression, "t.json");
    } catch (const UnsupportedError& error) {
      return error.what();
    }
    return "accepted";
  }
};

TEST_F(Patterns, MatchCharactersNotBytes) {
  EXPECT_THAT(matches(".", "a\u00E9\u4E2D"), ElementsAre("a", "\u00E9", "\u4E2D"));
  EXPECT_THAT(matches(R"(\p{L}+|\p{N}{1,3})", "na\u00EFve 12345"),
              ElementsAre("na\u00EFve", "123", "45"));
  EXPECT_THAT(matches("(?i:'s)", "'s 'S '\u017F"), ElementsAre("'s", "'S", "'\u017F"));
  EXPECT_THAT(matches("", ""), ElementsAre(""));
  EXPECT_THAT(matches("a", std::string_view()), IsEmpty());
}

TEST_F(Patterns, WhiteSpaceIsUnicodes) {
  EXPECT_THAT(matches(R"(\s)", "a\u180Eb\u0085c\u3000"), ElementsAre("\u0085", "\u3000"));
  EXPECT_THAT(matches(R"([^\s\p{L}])", "a \u180E"), ElementsAre("\u180E"));
  EXPECT_THAT(matches(R"(\S)", " \u180E\n"), ElementsAre("\u180E"));
  EXPECT_THAT(matches(R"([\S])", " \u180E\n"), ElementsAre("\u180E"));
}

TEST_F(Patterns, LinesEndAtLineFeedsOnly) {
  EXPECT_THAT(matches(R"(\s+$)", "a  \nb \rc  "), ElementsAre("  ", "  "));
  EXPECT_THAT(matches("^a", "a\na\ra"), ElementsAre("a", "a"));
  EXPECT_THAT(matches(".", "\n\r"), ElementsAre("\r"));
}

TEST_F(Patterns, EmptyMatchesStandApartFromOthers) {
  EXPECT_THAT(matches("x*", "axx\u00E9"), ElementsAre("", "xx", ""));
  EXPECT_THAT(matches("(?=b)", "abb"), ElementsAre("", ""));
}

TEST_F(Patterns, OneSearchForgetsTheOther) {
  PatternMatches matches(Pattern::regex("a", "t"));
  matches.search("aaa");
  matches.next();
  matches.search("ba");
  EXPECT_EQ(matches.next()->begin, 1u);
}

TEST_F(Patterns, LiteralsStandForThemselves) {
  EXPECT_THAT(all(Pattern::literal("a.b\\E", "t"), "axb\\E a.b\\E"), ElementsAre("a.b\\E"));
}

TEST_F(Patterns, RunsOfAnyLengthMatch) {
  const std::string letters(1 << 20, 'a'), spaces(1 << 20, ' ');
  EXPECT_EQ(matches(R"([^\r\n\p{L}\p{N}]?\p{L}+|\s+(?!\S)|\s+)", letters + spaces + "b").size(),
            3u);
}

TEST_F(Patterns, TooMuchBacktrackingIsAnError) {
  PatternMatches matches(Pattern::regex("(a+)+(a+)+[bc]", "t"));
  const std::string text(200, 'a');
  matches.search(text);
  EXPECT_THROW(matches.next(), Error);
}

TEST_F(Patterns, WhatIsReadOtherwiseIsTranslated) {
  EXPECT_EQ(to_pcre2(R"(\h[\h_]\v\u00e9)", "t"), R"([0-9A-Fa-f][0-9A-Fa-f_][\x{b}]\x{00e9})");
  EXPECT_EQ(to_pcre2(R"(\p{L}\P{Lu}\p{Han}\p{^Nd}[]a]{a}x{2,3})", "t"),
            R"(\p{L}\P{Lu}\p{sc:Han}\p{^Nd}[]a]{a}x{2,3})");
  EXPECT_THAT(matches(R"(\p{Han}+)", "\u4E2D\u6587\u3001"), ElementsAre("\u4E2D\u6587"));
}

TEST_F(Patterns, WhatMeansSomethingElseIsRefused) {
  for (const char* expression :
       {R"(\w)", R"(\b)", R"(\R)", R"(\1)", R"([\w])", R"([\A])", R"(a{1,3}+)", R"(a{2}?)",
        R"(a{,3})", R"([a[bc]])", R"([[:alpha:]])", R"([a&&b])", R"((?m:a))", R"(a(?i)b)",
        R"((*FAIL))", R"(\pL)", R"(\xE4)", R"(\u12)", R"(\k<n>)"}) {
    EXPECT_THAT(refusal(expression), HasSubstr(std::string("t.json: ") + expression)) << expression;
  }
}

TEST_F(Patterns, WhatIsNoExpressionIsRefused) {
  for (const char* expression : {"(", "[a", "\\", "a**b)", R"(\p{Nothing})", R"(\p{L)", "*"}) {
    EXPECT_THAT(refusal(expression), HasSubstr("t.json")) << expression;
  }
}

}  // namespace
}  // namespace farskip
