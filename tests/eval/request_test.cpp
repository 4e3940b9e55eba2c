#include "farskip/eval/request.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "../io/small_tokenizer.h"
#include "farskip/base/error.h"
#include "farskip/base/hash.h"
#include "farskip/eval/task.h"

namespace farskip {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class Requests : public testing::Test {
 protected:
  void SetUp() override {
    if (!patterns_are_available()) GTEST_SKIP() << "no PCRE2";
    tokenizer_ = tokenizer_from(small_tokenizer_json({{" ", "a"}, {"b", "c"}}));  // 256, 257
  }
  std::unique_ptr<Tokenizer> tokenizer_;
};

TEST_F(Requests, TheContinuationIsTheRest) {
  const Request request = encode_request(*tokenizer_, "x", " ab");
  EXPECT_THAT(request.ids, ElementsAre('x', 256, 'b'));
  EXPECT_EQ(request.scored, 2);
  EXPECT_EQ(request.inputs(), 2);
}

TEST_F(Requests, SpaceAtTheEndOfTheContextIsTheContinuations) {
  EXPECT_THAT(encode_request(*tokenizer_, "x ", "ab").ids, ElementsAre('x', 256, 'b'));
  EXPECT_EQ(encode_request(*tokenizer_, "x ", "ab").scored, 2);
  EXPECT_EQ(encode_request(*tokenizer_, "x\n\u3000", "b").scored, 1 + 3 + 1);
}

TEST_F(Requests, TokensAcrossTheBoundaryAreCountedAsTheHarnessDoes) {
  // The whole is x, bc: one id behind as many as the context has.
  const Request request = encode_request(*tokenizer_, "xb", "cy");
  EXPECT_THAT(request.ids, ElementsAre('x', 257, 'y'));
  EXPECT_EQ(request.scored, 1);
}

TEST_F(Requests, LongContextsLoseTheirBeginning) {
  const Request request = encode_request(*tokenizer_, "1 2 3", " a", {.max_length = 2});
  EXPECT_THAT(request.ids, ElementsAre(' ', '3', 256));
  EXPECT_EQ(request.scored, 1);
  EXPECT_THAT(encode_request(*tokenizer_, "x", "yz", {.max_length = 2}).ids,
              ElementsAre('x', 'y', 'z'));
}

TEST_F(Requests, WhatCanNotBeScoredIsRefused) {
  EXPECT_THROW(encode_request(*tokenizer_, "", "a"), ConfigError);
  EXPECT_THROW(encode_request(*tokenizer_, "  ", "a"), ConfigError);
  EXPECT_THROW(encode_request(*tokenizer_, "x", ""), ConfigError);
  EXPECT_THROW(encode_request(*tokenizer_, "b", "c"), ConfigError) << "both are one token";
  EXPECT_THROW(encode_request(*tokenizer_, "x", "yz", {.max_length = 1}), ConfigError);
  EXPECT_THROW(encode_request(*tokenizer_, "x\xFF", "y"), FileError);
}

TEST_F(Requests, SpecialTokensStandInFront) {
  Json json = small_tokenizer_json({});
  json["added_tokens"] = Json::array({added_token_json(300, "<s>")});
  json["post_processor"] = {
      {"type", "TemplateProcessing"},
      {"single", Json::array({{{"SpecialToken", {{"id", "<s>"}}}}, {{"Sequence", {{"id", "A"}}}}})},
      {"special_tokens", {{"<s>", {{"ids", Json::array({300})}}}}}};
  const auto tokenizer = tokenizer_from(json);
  const Request request = encode_request(*tokenizer, "x", "y", {.special_tokens = true});
  EXPECT_THAT(request.ids, ElementsAre(300, 'x', 'y'));
  EXPECT_EQ(request.scored, 1);
}

// Ids of the tokenizers package, cut by the harness's rule; tools/make_eval_fixtures.py wrote them.
class RequestParity : public testing::TestWithParam<const char*> {};

TEST_P(RequestParity, OnAllQuestions) {
  if (!patterns_are_available()) GTEST_SKIP() << "no PCRE2";
  const std::filesystem::path source = FARSKIP_SOURCE_DIR;
  const Json expected = read_json_file(source / "tests/fixtures/eval/requests.json").at(GetParam());
  const Tokenizer tokenizer(source / "data/tokenizer/tokenizer.json");
  Hasher hasher;
  size_t requests = 0, tokens = 0;
  int64_t scored = 0;
  for (const Question& question : read_task(source / "data/eval", GetParam()).questions) {
    for (const Choice& choice : question.choices) {
      const Request request = encode_request(tokenizer, choice.context, choice.continuation);
      ++requests;
      tokens += request.ids.size();
      scored += request.scored;
      hasher.add(request.scored);
      for (const int64_t id : request.ids) hasher.add(id);
    }
  }
  EXPECT_EQ(requests, expected.at("requests"));
  EXPECT_EQ(tokens, expected.at("tokens"));
  EXPECT_EQ(scored, expected.at("scored"));
  EXPECT_EQ(hasher.value(), expected.at("hash"));
}

INSTANTIATE_TEST_SUITE_P(Tasks, RequestParity,
                         testing::Values("arc_easy", "arc_challenge", "piqa", "winogrande"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace farskip
