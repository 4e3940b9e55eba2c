#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

#include "../base/temporary_folder.h"
#include "farskip/base/files.h"
#include "farskip/io/pattern.h"
#include "farskip/io/token_file.h"
#include "run_farskip.h"

namespace farskip {
namespace {

const std::string source = FARSKIP_SOURCE_DIR;
const std::string tokenizer = "--tokenizer " + source + "/data/tokenizer/tokenizer.json ";
const std::string other = "--tokenizer " + source + "/tests/fixtures/tokenizers/llama3.json ";

class TokenizeCommand : public testing::Test {
 protected:
  void SetUp() override {
    if (!patterns_are_available()) GTEST_SKIP() << "no PCRE2";
    write_file_atomically(text_, "One document.\n\f\nAnother one.\n");
  }

  const TemporaryFolder folder_;
  const std::string text_ = (folder_.path() / "text").string();
  const std::string output_ = (folder_.path() / "out.tokens").string();
};

TEST_F(TokenizeCommand, WritesChecksAndDecodes) {
  const Output written = farskip("tokenize " + tokenizer + "--json --out " + output_ + " " + text_);
  ASSERT_EQ(written.status, 0);
  const auto report = nlohmann::json::parse(written.text);
  EXPECT_EQ(report.at("documents"), 2);
  EXPECT_EQ(report.at("bytes"), 27);
  EXPECT_EQ(report.at("tokens"), TokenFile(output_).size());
  EXPECT_GT(report.at("unigram_entropy_nats"), 1.0);
  const Output checked = farskip("tokenize --check " + output_);
  EXPECT_EQ(checked.status, 0);
  EXPECT_NE(checked.text.find("documents             2\n"), std::string::npos) << checked.text;
  const Output decoded = farskip("tokenize " + tokenizer + "--decode 1000 --check " + output_);
  EXPECT_EQ(decoded.text, "One document.\n<|endoftext|>Another one.\n<|endoftext|>\n");
}

TEST_F(TokenizeCommand, DocumentsAndTheirEndsAreChosen) {
  const auto tokens = [&](const std::string& flags) {
    const Output output =
        farskip("tokenize " + tokenizer + flags + " --json --out " + output_ + " " + text_);
    EXPECT_EQ(output.status, 0) << flags;
    return nlohmann::json::parse(output.text);
  };
  EXPECT_EQ(tokens("--separator none").at("documents"), 1);
  EXPECT_EQ(tokens("--separator 'One document.'").at("bytes"), 15);
  EXPECT_EQ(tokens("--end-of-document e").at("end_of_document"), 69);
  EXPECT_TRUE(tokens("--end-of-document none").at("end_of_document").is_null());
}

TEST_F(TokenizeCommand, WrongUseIsToldFromWrongFiles) {
  EXPECT_EQ(farskip("tokenize").status, 2);
  EXPECT_EQ(farskip("tokenize " + tokenizer + text_).status, 2);
  EXPECT_EQ(farskip("tokenize --out " + output_ + " " + text_).status, 2);
  EXPECT_EQ(farskip("tokenize --decode 3 " + tokenizer).status, 2);
  EXPECT_EQ(farskip("tokenize --check " + output_ + " " + text_).status, 2);
  EXPECT_EQ(
      farskip("tokenize " + tokenizer + "--end-of-document nonesuch --out " + output_ + " " + text_)
          .status,
      2);
  EXPECT_EQ(farskip("tokenize " + other + "--out " + output_ + " " + text_).status, 2)
      << "it has no token that surely ends a text";
  EXPECT_EQ(farskip("tokenize " + tokenizer + "--out " + output_ + " no/such/text").status, 1);
  EXPECT_EQ(farskip("tokenize --check " + text_).status, 1);
  EXPECT_FALSE(std::filesystem::exists(output_));
}

TEST_F(TokenizeCommand, AnotherTokenizerIsNoticed) {
  ASSERT_EQ(farskip("tokenize " + tokenizer + "--out " + output_ + " " + text_).status, 0);
  EXPECT_EQ(farskip("tokenize " + tokenizer + "--check " + output_).status, 0);
  EXPECT_EQ(farskip("tokenize " + other + "--check " + output_).status, 1);
  EXPECT_EQ(farskip("tokenize --decode 3 --check " + output_).status, 2);
}

}  // namespace
}  // namespace farskip
