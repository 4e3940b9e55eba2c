#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "farskip/base/files.h"
#include "farskip/base/hash.h"
#include "farskip/base/json.h"
#include "farskip/io/tokenizer.h"

namespace farskip {
namespace {

namespace fs = std::filesystem;

// Ids of Hugging Face's library; tools/make_tokenizer_fixtures.py wrote them.
class TokenizerParity : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    if (!patterns_are_available() || !normalization_is_available()) {
      GTEST_SKIP() << "no PCRE2 or no utf8proc";
    }
  }

  const fs::path source_ = FARSKIP_SOURCE_DIR;
  const fs::path fixtures_ = source_ / "tests/fixtures/tokenizers";
};

void expect_ids(const std::vector<int32_t>& ids, const Json& expected) {
  const auto first = expected.at("first").get<std::vector<int32_t>>();
  ASSERT_GE(ids.size(), first.size());
  EXPECT_TRUE(std::equal(first.begin(), first.end(), ids.begin()));
  EXPECT_EQ(ids.size(), expected.at("tokens"));
  Hasher hasher;
  for (const int32_t id : ids) hasher.add(id);
  EXPECT_EQ(hasher.value(), expected.at("hash"));
}

TEST_P(TokenizerParity, OnRealAndOddText) {
  const Json expected = read_json_file(fixtures_ / "ids.json").at("kinds").at(GetParam());
  const Tokenizer tokenizer(GetParam() == "farskip" ? source_ / "data/tokenizer/tokenizer.json"
                                                    : fixtures_ / (GetParam() + ".json"));
  const std::string real = read_file(source_ / "data/text/sample.txt");
  expect_ids(tokenizer.encode(real), expected.at("sample"));
  expect_ids(tokenizer.encode(read_file(fixtures_ / "odd.txt")), expected.at("odd"));
  EXPECT_EQ(tokenizer.encode("a b", {.special_tokens = true}),
            expected.at("special").get<std::vector<int32_t>>());
}

INSTANTIATE_TEST_SUITE_P(Kinds, TokenizerParity,
                         testing::Values("gpt2", "gpt_neox", "llama3", "qwen2", "gpt_4o",
                                         "deepseek_v2", "deepseek_v3", "behaviors", "farskip"),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace farskip
