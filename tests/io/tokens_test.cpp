#include "farskip/io/tokens.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "checkpoint_tools.h"
#include "farskip/base/error.h"

namespace farskip {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

at::Tensor ids_of(const std::vector<int64_t>& values) { return at::tensor(values, at::kLong); }

class Tokens : public testing::Test {
 protected:
  TokenBatch read(const Tensors& tensors) const {
    write_tensors(folder_.path() / "t", tensors);
    return read_tokens(folder_.path() / "t", 10);
  }
  std::string error(const Tensors& tensors) const {
    return message_of<FileError>([&] { read(tensors); });
  }
  std::filesystem::path text(const std::string& content) const {
    write_file_atomically(folder_.path() / "text", content);
    return folder_.path() / "text";
  }

 private:
  TemporaryFolder folder_;
};

TEST_F(Tokens, FullRows) {
  const TokenBatch batch = read({{"input_ids", at::arange(6, at::kLong).view({2, 3})}});
  EXPECT_THAT(batch.ids, ElementsAre(0, 1, 2, 3, 4, 5));
  EXPECT_THAT(batch.lengths, ElementsAre(3, 3));
  EXPECT_EQ(batch.width, 3);
}

TEST_F(Tokens, RaggedRowsLoseTheirPaddingWhateverItHolds) {
  const at::Tensor ids = ids_of({1, -1, 99, 2, 3, 4}).view({2, 3});
  const TokenBatch batch = read({{"input_ids", ids}, {"lengths", ids_of({1, 3})}});
  EXPECT_THAT(batch.ids, ElementsAre(1, 2, 3, 4));
  EXPECT_THAT(batch.lengths, ElementsAre(1, 3));
}

TEST_F(Tokens, WrongFilesAreRefused) {
  const at::Tensor good = at::arange(6, at::kLong).view({2, 3});
  EXPECT_THAT(error({{"ids", good}}), HasSubstr("input_ids"));
  EXPECT_THAT(error({{"input_ids", good.to(at::kInt)}}), HasSubstr("found I32 [2, 3]"));
  EXPECT_THAT(error({{"input_ids", good.view({6})}}), HasSubstr("found I64 [6]"));
  EXPECT_THAT(error({{"input_ids", at::empty({0, 3}, at::kLong)}}), HasSubstr("not empty"));
  EXPECT_THAT(error({{"input_ids", at::empty({2, 0}, at::kLong)}}), HasSubstr("not empty"));
  EXPECT_THAT(error({{"input_ids", good + 5}}), HasSubstr("input_ids[1, 2]"));
  EXPECT_THAT(error({{"input_ids", good - 1}}), HasSubstr("expected 0 to 9, found -1"));
  EXPECT_THAT(error({{"input_ids", good}, {"lengths", ids_of({3})}}), HasSubstr("number of"));
  EXPECT_THAT(error({{"input_ids", good}, {"lengths", ids_of({3, 4})}}), HasSubstr("lengths[1]"));
  EXPECT_THAT(error({{"input_ids", good}, {"lengths", ids_of({0, 3})}}), HasSubstr("lengths[0]"));
  EXPECT_THAT(error({{"input_ids", good}, {"lengths", good}}), HasSubstr("lengths"));
}

TEST_F(Tokens, EveryFixtureHoldsTokens) {
  for (const char* family : {"deepseek_v2", "deepseek_v3", "qwen3_moe", "olmoe", "mixtral"}) {
    const TokenBatch batch = read_tokens(fixture(family) / "golden.safetensors", 512);
    EXPECT_EQ(batch.batch(), 2);
    EXPECT_EQ(batch.ids.size(), 96u);
  }
}

TEST_F(Tokens, FromTextEqualWordsGetEqualIds) {
  const auto path = text("the cat, the dog\xc3\xa9 the");
  const std::vector<int64_t> ids = tokens_from_text(path, 8, 100000);
  ASSERT_EQ(ids.size(), 8u);
  EXPECT_EQ(ids[0], ids[3]);
  EXPECT_EQ(ids[0], ids[5]);
  EXPECT_EQ(ids[6], ids[0]) << "the text starts over";
  EXPECT_EQ(std::set<int64_t>(ids.begin(), ids.begin() + 6).size(), 4u);
  EXPECT_EQ(tokens_from_text(path, 8, 100000), ids);
  for (int64_t id : tokens_from_text(path, 100, 3)) EXPECT_TRUE(id >= 0 && id < 3);
}

TEST_F(Tokens, FromTextNeedsWords) {
  EXPECT_THROW(tokens_from_text(text(""), 4, 10), FileError);
  EXPECT_THROW(tokens_from_text(text(" \n\t"), 4, 10), FileError);
  EXPECT_TRUE(tokens_from_text(text(""), 0, 10).empty());
  EXPECT_THROW(tokens_from_text("no/such/file", 4, 10), FileError);
  EXPECT_THROW(tokens_from_text(text("a"), -1, 10), ConfigError);
  EXPECT_THROW(tokens_from_text(text("a"), 4, 0), ConfigError);
}

}  // namespace
}  // namespace farskip
