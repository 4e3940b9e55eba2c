#include "farskip/io/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <thread>

#include "../base/temporary_folder.h"
#include "farskip/base/error.h"
#include "farskip/base/files.h"
#include "small_tokenizer.h"

namespace farskip {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

using Ids = std::vector<int32_t>;

class Tokenizers : public testing::Test {
 protected:
  void SetUp() override {
    if (!patterns_are_available()) GTEST_SKIP() << "no PCRE2";
  }
};

TEST_F(Tokenizers, MergesGoByRankThenFromTheLeft) {
  // 256 "bc", 257 "ab", 258 "aa", 259 "abc"
  const auto tokenizer = tokenizer_from(
      small_tokenizer_json({{"b", "c"}, {"a", "b"}, {"a", "a"}, {"a", "bc"}, {"ab", "c"}}));
  EXPECT_THAT(tokenizer->encode("abc"), ElementsAre(259)) << "bc before ab";
  EXPECT_THAT(tokenizer->encode("abb"), ElementsAre(257, 'b'));
  EXPECT_THAT(tokenizer->encode("aaa"), ElementsAre(258, 'a')) << "leftmost first";
  EXPECT_THAT(tokenizer->encode("aaaaa"), ElementsAre(258, 258, 'a'));
  EXPECT_THAT(tokenizer->encode("c"), ElementsAre('c'));
  EXPECT_THAT(tokenizer->encode(""), IsEmpty());
  EXPECT_EQ(tokenizer->vocabulary_size(), 260);
}

TEST_F(Tokenizers, MergesStayInsidePieces) {
  const auto tokenizer = tokenizer_from(small_tokenizer_json({{"a", " "}, {" ", "b"}, {"1", "a"}}));
  EXPECT_THAT(tokenizer->encode("a b"), ElementsAre('a', 257));
  EXPECT_THAT(tokenizer->encode("1a"), ElementsAre('1', 'a'));
}

TEST_F(Tokenizers, IgnoredMergesLetWholeTokensThrough) {
  Json json = small_tokenizer_json({{"a", "b"}});
  json["model"]["vocab"]["abc"] = 300;
  EXPECT_THAT(tokenizer_from(json)->encode("abc"), ElementsAre(256, 'c'));
  json["model"]["ignore_merges"] = true;
  EXPECT_THAT(tokenizer_from(json)->encode("abc"), ElementsAre(300));
  EXPECT_EQ(tokenizer_from(json)->vocabulary_size(), 301);
}

TEST_F(Tokenizers, LongWordsTakeNoQuadraticTime) {
  const auto tokenizer = tokenizer_from(small_tokenizer_json({{"a", "a"}, {"aa", "aa"}}));
  EXPECT_EQ(tokenizer->encode(std::string(1 << 20, 'a')).size(), 1u << 18);
}

TEST_F(Tokenizers, WordsMetBeforeGiveTheSameIds) {
  const auto tokenizer = tokenizer_from(small_tokenizer_json({{"a", "b"}, {" ", "ab"}}));
  std::string text;
  Ids expected;
  for (int i = 0; i < 100; ++i) {
    text += " abc";
    expected.insert(expected.end(), {257, 'c'});
  }
  EXPECT_EQ(tokenizer->encode(text), expected);
  EXPECT_EQ(tokenizer->encode(text), expected);
}

TEST_F(Tokenizers, AddedTokensComeBeforeEverythingElse) {
  Json json = small_tokenizer_json({});
  json["added_tokens"] = {added_token_json(300, "<e>"), added_token_json(301, "<e><e>"),
                          added_token_json(302, "xx", false)};
  const auto tokenizer = tokenizer_from(json);
  EXPECT_THAT(tokenizer->encode("a<e>b"), ElementsAre('a', 300, 'b'));
  EXPECT_THAT(tokenizer->encode("<e><e><e>"), ElementsAre(301, 300)) << "the longest";
  EXPECT_THAT(tokenizer->encode("<e"), ElementsAre('<', 'e'));
  EXPECT_THAT(tokenizer->encode("xxaxx"), ElementsAre(302, 'a', 302));
  EXPECT_EQ(tokenizer->decode(Ids{'a', 300, 302}), "a<e>xx");
  EXPECT_EQ(tokenizer->decode(Ids{'a', 300, 302}, true), "axx");
  EXPECT_EQ(tokenizer->id_of("<e>"), 300);
}

TEST_F(Tokenizers, AddedTokensTakeWhiteSpaceWhereTheySaySo) {
  Json json = small_tokenizer_json({});
  json["added_tokens"] = {added_token_json(300, "<l>"), added_token_json(301, "<r>")};
  json["added_tokens"][0]["lstrip"] = true;
  json["added_tokens"][1]["rstrip"] = true;
  const auto tokenizer = tokenizer_from(json);
  EXPECT_THAT(tokenizer->encode("a \u3000\n<l> b"), ElementsAre('a', 300, ' ', 'b'));
  EXPECT_THAT(tokenizer->encode("a <r>\u3000\nb"), ElementsAre('a', ' ', 301, 'b'));
  EXPECT_THAT(tokenizer->encode("<r>  <l>"), ElementsAre(301, 300));
}

TEST_F(Tokenizers, NormalizedTokensAreFoundInNormalizedText) {
  if (!normalization_is_available()) GTEST_SKIP() << "no utf8proc";
  Json json = small_tokenizer_json({});
  json["normalizer"] = {{"type", "NFC"}};
  json["added_tokens"] = {added_token_json(300, "\u014D", false),
                          added_token_json(301, "o\u0304!")};
  const auto tokenizer = tokenizer_from(json);
  EXPECT_THAT(tokenizer->encode("ao\u0304"), ElementsAre('a', 300));
  EXPECT_THAT(tokenizer->encode("o\u0304!"), ElementsAre(301)) << "those of the raw text are first";
  EXPECT_THAT(tokenizer->encode("\u014D!"), ElementsAre(300, '!'));
}

TEST_F(Tokenizers, NormalFormsChangeTheText) {
  if (!normalization_is_available()) GTEST_SKIP() << "no utf8proc";
  const auto decoded = [](const char* form, const char* text) {
    Json json = small_tokenizer_json({});
    json["normalizer"] = {{"type", form}};
    const auto tokenizer = tokenizer_from(json);
    return tokenizer->decode(tokenizer->encode(text));
  };
  EXPECT_EQ(decoded("NFC", "e\u0301\uFB01"), "\u00E9\uFB01");
  EXPECT_EQ(decoded("NFD", "\u00E9\uFB01"), "e\u0301\uFB01");
  EXPECT_EQ(decoded("NFKC", "e\u0301\uFB01"), "\u00E9fi");
  EXPECT_EQ(decoded("NFKD", "\u00E9\uFB01"), "e\u0301fi");
  EXPECT_EQ(decoded("NFC", "\u1100\u1161\u11A8"), "\uAC01");
  EXPECT_EQ(decoded("NFC", "a\u0323\u0307"), "\u1EA1\u0307");
}

TEST_F(Tokenizers, TextThatIsNotUtf8IsRefusedWithItsOffset) {
  const auto tokenizer = tokenizer_from(small_tokenizer_json({}));
  try {
    tokenizer->encode("abc\xE2\x82");
    FAIL();
  } catch (const FileError& error) {
    EXPECT_THAT(error.what(), HasSubstr("byte 3"));
  }
  EXPECT_THAT(tokenizer->encode(std::string_view("\0\x7F", 2)), ElementsAre(0, 0x7F));
}

TEST_F(Tokenizers, BytesWithoutATokenAreRefused) {
  Json json = small_tokenizer_json({});
  json["model"]["vocab"].erase("q");
  const auto tokenizer = tokenizer_from(json);
  EXPECT_THAT(tokenizer->encode("a"), ElementsAre('a'));
  EXPECT_THROW(tokenizer->encode("q"), UnsupportedError);
}

TEST_F(Tokenizers, DecodingGivesTheBytes) {
  const auto tokenizer = tokenizer_from(small_tokenizer_json({{"\xC3", "\xA9"}}));
  const std::string text = "caf\u00E9 \U0001F30D\n";
  EXPECT_EQ(tokenizer->decode(tokenizer->encode(text)), text);
  EXPECT_EQ(tokenizer->bytes_of(256), "\u00E9");
  EXPECT_EQ(tokenizer->bytes_of(0xC3), "\xC3");
  EXPECT_THROW(tokenizer->decode(Ids{257}), ConfigError);
  EXPECT_THROW(tokenizer->decode(Ids{-1}), ConfigError);
}

TEST_F(Tokenizers, HolesInTheVocabularyAreNoTokens) {
  Json json = small_tokenizer_json({});
  json["model"]["vocab"]["zz"] = 299;
  const auto tokenizer = tokenizer_from(json);
  EXPECT_EQ(tokenizer->bytes_of(299), "zz");
  EXPECT_THROW(tokenizer->bytes_of(270), ConfigError);
  EXPECT_FALSE(tokenizer->id_of("zzz"));
}

TEST_F(Tokenizers, SpecialTokensStandWhereTheTemplateHasThem) {
  Json json = small_tokenizer_json({});
  json["added_tokens"] = {added_token_json(300, "<s>"), added_token_json(301, "</s>")};
  json["post_processor"] = {
      {"type", "TemplateProcessing"},
      {"single",
       {{{"SpecialToken", {{"id", "<s>"}, {"type_id", 0}}}},
        {{"Sequence", {{"id", "A"}, {"type_id", 0}}}},
        {{"SpecialToken", {{"id", "</s>"}, {"type_id", 0}}}}}},
      {"special_tokens",
       {{"<s>", {{"id", "<s>"}, {"ids", {300}}}}, {"</s>", {{"id", "</s>"}, {"ids", {301}}}}}}};
  const auto tokenizer = tokenizer_from(json);
  EXPECT_THAT(tokenizer->encode("a", {.special_tokens = true}), ElementsAre(300, 'a', 301));
  EXPECT_THAT(tokenizer->encode("a"), ElementsAre('a'));
  json["post_processor"]["special_tokens"]["<s>"]["ids"] = {999};
  EXPECT_THROW(tokenizer_from(json), ConfigError);
  json["post_processor"] = {{"type", "BertProcessing"}};
  EXPECT_THAT(tokenizer_from(json)->encode("a"), ElementsAre('a'));
  EXPECT_THROW(tokenizer_from(json)->encode("a", {.special_tokens = true}), UnsupportedError);
}

TEST_F(Tokenizers, AreUsedByManyThreads) {
  const auto tokenizer = tokenizer_from(small_tokenizer_json({{"a", "b"}, {" ", "ab"}}));
  std::string text;
  for (int i = 0; i < 2000; ++i) text += " ab" + std::to_string(i % 97);
  const Ids expected = tokenizer->encode(text);
  std::vector<std::thread> threads;
  std::array<bool, 4> equal{};
  for (size_t t = 0; t < equal.size(); ++t) {
    threads.emplace_back([&, t] {
      equal[t] = true;
      for (int i = 0; i < 10; ++i) equal[t] = equal[t] && tokenizer->encode(text) == expected;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(equal, testing::Each(true));
}

TEST_F(Tokenizers, FingerprintsFollowWhatDecidesTheIds) {
  const Json json = small_tokenizer_json({{"a", "b"}});
  const uint64_t fingerprint = tokenizer_from(json)->fingerprint();
  EXPECT_EQ(tokenizer_from(parse_json(json.dump(3), "t"))->fingerprint(), fingerprint);
  EXPECT_NE(tokenizer_from(small_tokenizer_json({{"a", "c"}}))->fingerprint(), fingerprint);
  Json added = json;
  added["added_tokens"] = Json::array({added_token_json(300, "<s>")});
  EXPECT_NE(tokenizer_from(added)->fingerprint(), fingerprint);
}

TEST_F(Tokenizers, ComeFromFiles) {
  const TemporaryFolder folder;
  const auto file = folder.path() / "tokenizer.json";
  EXPECT_THROW(Tokenizer{file}, FileError);
  write_file_atomically(file, small_tokenizer_json({{"a", "b"}}).dump());
  EXPECT_THAT(Tokenizer(file).encode("ab"), ElementsAre(256));
  write_file_atomically(file, small_tokenizer_json({{"a", "b"}}).dump().substr(0, 1000));
  EXPECT_THROW(Tokenizer{file}, FileError);
}

}  // namespace
}  // namespace farskip
