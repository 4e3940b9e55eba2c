#include "farskip/io/tokenizer_definition.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "farskip/base/error.h"
#include "small_tokenizer.h"

namespace farskip {
namespace {

using testing::HasSubstr;

// What is said of a good file with one change.
template <typename Expected>
std::string refusal(const std::function<void(Json&)>& change) {
  Json json = small_tokenizer_json({{"a", "b"}});
  change(json);
  try {
    read_tokenizer_definition(json, "t.json");
  } catch (const Expected& error) {
    return error.what();
  }
  return "accepted";
}

std::string wrong(const std::function<void(Json&)>& change) { return refusal<ConfigError>(change); }
std::string unsupported(const std::function<void(Json&)>& change) {
  return refusal<UnsupportedError>(change);
}

TEST(TokenizerDefinition, MergesMayBeTextOrPairs) {
  Json json = small_tokenizer_json({{"a", "b"}, {"ab", "c"}});
  const auto merges = read_tokenizer_definition(json, "t").merges;
  json["model"]["merges"] = Json::array({Json::array({"a", "b"}), Json::array({"ab", "c"})});
  ASSERT_TRUE(json["model"]["merges"][0].is_array());
  EXPECT_EQ(read_tokenizer_definition(json, "t").merges, merges);
}

TEST(TokenizerDefinition, DefaultsAreThoseOfTheFormat) {
  Json json = small_tokenizer_json({});
  json["pre_tokenizer"] = {{"type", "ByteLevel"}};
  json.erase("decoder");
  json.erase("added_tokens");
  const auto definition = read_tokenizer_definition(json, "t");
  ASSERT_EQ(definition.pre_tokenizer.size(), 2u);
  EXPECT_TRUE(std::holds_alternative<PrefixSpaceRule>(definition.pre_tokenizer[0]));
}

TEST(TokenizerDefinition, NestedSequencesAreOneAfterTheOther) {
  const auto digits = [](bool individual) -> Json {
    return {{"type", "Digits"}, {"individual_digits", individual}};
  };
  Json json = small_tokenizer_json({});
  const Json byte_level = {
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}};
  const Json inner = {{"type", "Sequence"}, {"pretokenizers", {digits(false), byte_level}}};
  json["pre_tokenizer"] = {{"type", "Sequence"}, {"pretokenizers", {digits(true), inner}}};
  json["normalizer"] = {{"type", "Sequence"},
                        {"normalizers", {{{"type", "NFD"}}, {{"type", "NFC"}}}}};
  const auto definition = read_tokenizer_definition(json, "t");
  ASSERT_EQ(definition.pre_tokenizer.size(), 2u);
  EXPECT_EQ(std::get<SplitRule>(definition.pre_tokenizer[0]).behavior, SplitBehavior::isolated);
  EXPECT_EQ(std::get<SplitRule>(definition.pre_tokenizer[1]).behavior, SplitBehavior::contiguous);
  EXPECT_EQ(definition.normal_forms, (std::vector{NormalForm::nfd, NormalForm::nfc}));
  json["normalizer"]["normalizers"] = Json::array();
  EXPECT_TRUE(read_tokenizer_definition(json, "t").normal_forms.empty());
}

TEST(TokenizerDefinition, ContradictionsAreNamed) {
  EXPECT_THAT(wrong([](Json& j) { j = 3; }), HasSubstr("t.json"));
  EXPECT_THAT(wrong([](Json& j) { j.erase("model"); }), HasSubstr("model"));
  EXPECT_THAT(wrong([](Json& j) { j["model"].erase("type"); }), HasSubstr("model: type"));
  EXPECT_THAT(wrong([](Json& j) { j["model"]["vocab"] = Json::array(); }), HasSubstr("vocab"));
  EXPECT_THAT(wrong([](Json& j) { j["model"]["vocab"]["a"] = "1"; }), HasSubstr("token id"));
  EXPECT_THAT(wrong([](Json& j) { j["model"]["vocab"]["a"] = -1; }), HasSubstr("token id"));
  EXPECT_THAT(wrong([](Json& j) { j["model"]["vocab"]["a"] = 1 << 30; }), HasSubstr("token id"));
  EXPECT_THAT(wrong([](Json& j) { j["model"]["vocab"]["a"] = 98; }), HasSubstr("98 again"));
  EXPECT_THAT(wrong([](Json& j) { j["model"].erase("merges"); }), HasSubstr("merges"));
  EXPECT_THAT(wrong([](Json& j) { j["model"]["merges"][0] = "ab"; }), HasSubstr("merges[0]"));
  EXPECT_THAT(wrong([](Json& j) { j["model"]["merges"][0] = "a b c"; }), HasSubstr("merges[0]"));
  EXPECT_THAT(wrong([](Json& j) { j["model"]["merges"][0] = Json::array({"a"}); }),
              HasSubstr("merges[0]"));
  EXPECT_THAT(wrong([](Json& j) { j["model"]["merges"][0] = "a c"; }), HasSubstr("\"ac\""));
}

TEST(TokenizerDefinition, AddedTokensAgreeWithTheVocabulary) {
  const auto with = [](const Json& tokens) {
    return wrong([&](Json& json) { json["added_tokens"] = tokens; });
  };
  EXPECT_EQ(with(Json::array({added_token_json('a', "a")})), "accepted")
      << "in the vocabulary with this id";
  EXPECT_THAT(with(Json::array({added_token_json('b', "a")})),
              HasSubstr("expected 97, as in the vocabulary"));
  EXPECT_THAT(with(Json::array({added_token_json('b', "<s>")})), HasSubstr("an id of its own"));
  EXPECT_THAT(with({added_token_json(300, "<s>"), added_token_json(300, "<t>")}),
              HasSubstr("added_tokens[1]: id"));
  EXPECT_THAT(with({added_token_json(300, "<s>"), added_token_json(301, "<s>")}),
              HasSubstr("again"));
  EXPECT_THAT(with(Json::array({added_token_json(300, "")})), HasSubstr("content"));
  EXPECT_THAT(with(Json::array({Json{{"content", "<s>"}}})), HasSubstr("id"));
  EXPECT_THAT(with("x"), HasSubstr("an array"));
}

TEST(TokenizerDefinition, OtherKindsAreNamed) {
  const auto set = [](const char* pointer, const Json& value) {
    return unsupported([&](Json& json) { json[Json::json_pointer(pointer)] = value; });
  };
  EXPECT_THAT(set("/version", "2.0"), HasSubstr("2.0"));
  EXPECT_THAT(set("/model/type", "WordPiece"), HasSubstr("WordPiece"));
  EXPECT_THAT(set("/model/dropout", 0.1), HasSubstr("dropout"));
  EXPECT_THAT(set("/model/continuing_subword_prefix", "##"), HasSubstr("##"));
  EXPECT_THAT(set("/model/end_of_word_suffix", "</w>"), HasSubstr("</w>"));
  EXPECT_THAT(set("/model/byte_fallback", true), HasSubstr("SentencePiece"));
  EXPECT_THAT(set("/normalizer", {{"type", "Lowercase"}}), HasSubstr("Lowercase"));
  EXPECT_THAT(set("/pre_tokenizer", nullptr), HasSubstr("none"));
  EXPECT_THAT(set("/pre_tokenizer/type", "Metaspace"), HasSubstr("Metaspace"));
  EXPECT_THAT(set("/pre_tokenizer", {{"type", "Digits"}}), HasSubstr("ByteLevel"));
  const Json byte_level = {{"type", "ByteLevel"}};
  EXPECT_THAT(
      set("/pre_tokenizer", {{"type", "Sequence"}, {"pretokenizers", {byte_level, byte_level}}}),
      HasSubstr("[0]"));
  EXPECT_THAT(set("/decoder", {{"type", "Metaspace"}}), HasSubstr("Metaspace"));
  Json single_word = added_token_json(300, "<s>");
  single_word["single_word"] = true;
  EXPECT_THAT(set("/added_tokens", Json::array({single_word})), HasSubstr("single_word"));
}

TEST(TokenizerDefinition, PatternsAreRegexOrString) {
  const auto split = [](const Json& pattern, const char* behavior) {
    return wrong([&](Json& json) {
      const Json rule = {{"type", "Split"}, {"pattern", pattern}, {"behavior", behavior}};
      json["pre_tokenizer"] = {{"type", "Sequence"},
                               {"pretokenizers", {rule, {{"type", "ByteLevel"}}}}};
    });
  };
  EXPECT_EQ(split({{"Regex", "a"}}, "Isolated"), "accepted");
  EXPECT_EQ(split({{"String", "a"}}, "MergedWithNext"), "accepted");
  EXPECT_THAT(split({{"Glob", "a"}}, "Isolated"), HasSubstr("pattern"));
  EXPECT_THAT(split("a", "Isolated"), HasSubstr("pattern"));
  EXPECT_THAT(split({{"Regex", ""}}, "Isolated"), HasSubstr("pattern"));
  EXPECT_THAT(split({{"Regex", "a"}}, "Merged"), HasSubstr("Merged"));
}

}  // namespace
}  // namespace farskip
