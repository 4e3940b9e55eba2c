#include "farskip/io/corpus.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "../base/temporary_folder.h"
#include "farskip/base/error.h"
#include "small_tokenizer.h"

namespace farskip {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

std::vector<std::string> documents(std::string_view text, const std::string& separator = "\f") {
  DocumentSplitter splitter(text, separator);
  std::vector<std::string> found;
  while (const auto document = splitter.next()) found.emplace_back(*document);
  EXPECT_FALSE(splitter.next());
  return found;
}

TEST(Documents, StandBetweenSeparatingLines) {
  EXPECT_THAT(documents("a\nb\n\f\nc"), ElementsAre("a\nb\n", "c"));
  EXPECT_THAT(documents("a\n\f\nb\n\f\nc\n"), ElementsAre("a\n", "b\n", "c\n"));
  EXPECT_THAT(documents("a\n"), ElementsAre("a\n"));
  EXPECT_THAT(documents("a\n--\nb\n", "--"), ElementsAre("a\n", "b\n"));
}

TEST(Documents, OnlyAWholeLineSeparates) {
  EXPECT_THAT(documents("a\fb\n\f \n \f\n\f\f\n\f\r\nc"),
              ElementsAre("a\fb\n\f \n \f\n\f\f\n\f\r\nc"));
  EXPECT_THAT(documents("a\n---\n----\n--\nb", "--"), ElementsAre("a\n---\n----\n", "b"));
}

TEST(Documents, EmptyOnesAreLeftOut) {
  EXPECT_THAT(documents(""), IsEmpty());
  EXPECT_THAT(documents("\f"), IsEmpty());
  EXPECT_THAT(documents("\f\n\f\na\n\f\n\f\n\n\f"), ElementsAre("a\n", "\n"));
}

TEST(Documents, WithoutASeparatorATextIsOne) {
  EXPECT_THAT(documents("a\n\f\nb", ""), ElementsAre("a\n\f\nb"));
  EXPECT_THAT(documents("", ""), IsEmpty());
}

class Corpora : public testing::Test {
 protected:
  void SetUp() override {
    if (!patterns_are_available()) GTEST_SKIP() << "no PCRE2";
    Json json = small_tokenizer_json({{"a", "b"}});
    json["added_tokens"] = Json::array({added_token_json(257, "<|endoftext|>")});
    tokenizer_ = tokenizer_from(json);
  }
  fs::path write(const std::string& name, const std::string& content) const {
    write_file_atomically(folder_.path() / name, content);
    return folder_.path() / name;
  }
  CorpusReport tokenize(const std::vector<fs::path>& texts, const CorpusOptions& options) const {
    return tokenize_corpus(*tokenizer_, texts, output(), options);
  }
  fs::path output() const { return folder_.path() / "out.tokens"; }
  std::vector<int64_t> ids() const {
    const TokenFile file(output());
    file.verify();
    std::vector<int64_t> ids(file.size());
    file.read(0, ids);
    return ids;
  }

  TemporaryFolder folder_;
  std::unique_ptr<Tokenizer> tokenizer_;
};

TEST_F(Corpora, BecomeTokenFiles) {
  const auto report =
      tokenize({write("x", "ab\n\f\nc"), write("y", "ab")}, {.end_of_document = 257});
  EXPECT_THAT(ids(), ElementsAre(256, '\n', 257, 'c', 257, 256, 257));
  const TokenFile file(output());
  EXPECT_THAT(file.document_starts(), ElementsAre(0, 3, 5));
  EXPECT_EQ(file.source().tokenizer_fingerprint, tokenizer_->fingerprint());
  EXPECT_EQ(file.source().vocabulary, 258);
  EXPECT_EQ(file.source().end_of_document, 257);
  EXPECT_EQ(report.counts.documents, 3u);
  EXPECT_EQ(report.counts.text_bytes, 6u);
  // 257 three times, 256 twice, two ids once, of seven.
  const auto part = [](double share) { return -share * std::log(share); };
  EXPECT_NEAR(report.unigram_entropy, part(3. / 7) + part(2. / 7) + 2 * part(1. / 7), 1e-12);
}

TEST_F(Corpora, MayHaveNoEndsOfDocuments) {
  tokenize({write("x", "ab\n\f\nc")}, {});
  EXPECT_THAT(ids(), ElementsAre(256, '\n', 'c'));
  EXPECT_THAT(TokenFile(output()).document_starts(), ElementsAre(0, 2));
}

TEST_F(Corpora, AreTheSameWhateverThreadsDo) {
  std::string text;
  for (int i = 0; i < 3000; ++i) text += std::string(1 + i % 50, 'a') + "b\n\f\n";
  tokenize({write("x", text)}, {});
  const auto first = ids();
  std::vector<int32_t> expected;
  for (const std::string& document : documents(text)) {
    const auto encoded = tokenizer_->encode(document);
    expected.insert(expected.end(), encoded.begin(), encoded.end());
  }
  EXPECT_TRUE(std::equal(first.begin(), first.end(), expected.begin(), expected.end()));
}

TEST_F(Corpora, WrongTextLeavesNoFile) {
  EXPECT_THROW(tokenize({write("x", "ab"), "no/such/text"}, {}), FileError);
  try {
    tokenize({write("x", "ab\n\f\nc\xFF")}, {});
    FAIL();
  } catch (const FileError& error) {
    EXPECT_THAT(error.what(), HasSubstr("x: byte 6"));
  }
  EXPECT_FALSE(fs::exists(output()));
}

TEST_F(Corpora, WithoutTextAreEmpty) {
  const auto report = tokenize({write("x", "")}, {.end_of_document = 257});
  EXPECT_EQ(report.counts.ids, 0u);
  EXPECT_THAT(ids(), IsEmpty());
}

TEST_F(Corpora, TheEndOfATextIsTold) {
  EXPECT_EQ(find_end_of_text(*tokenizer_, folder_.path() / "tokenizer.json"), 257);
  const auto other = tokenizer_from(small_tokenizer_json({{"<", "s"}}));
  EXPECT_FALSE(find_end_of_text(*other, folder_.path() / "tokenizer.json"));
  write("tokenizer_config.json", R"({"eos_token": "<s"})");
  EXPECT_EQ(find_end_of_text(*other, folder_.path() / "tokenizer.json"), 256);
  write("tokenizer_config.json", R"({"eos_token": {"content": "<s", "lstrip": false}})");
  EXPECT_EQ(find_end_of_text(*other, folder_.path() / "tokenizer.json"), 256);
  write("tokenizer_config.json", R"({"eos_token": null})");
  EXPECT_FALSE(find_end_of_text(*other, folder_.path() / "tokenizer.json"));
  write("tokenizer_config.json", R"({"eos_token": 3})");
  EXPECT_THROW(find_end_of_text(*other, folder_.path() / "tokenizer.json"), ConfigError);
}

}  // namespace
}  // namespace farskip
