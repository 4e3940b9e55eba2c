#include "farskip/train/state_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "../io/checkpoint_tools.h"
#include "farskip/base/error.h"
#include "state_of_model.h"

namespace farskip {
namespace {

using testing::HasSubstr;
using testing::UnorderedElementsAreArray;

class StateFiles : public testing::Test {
 protected:
  std::filesystem::path path() const { return folder_.path() / "rank-00000.safetensors"; }

  TemporaryFolder folder_;
};

TEST_F(StateFiles, HoldEveryShardUnderItsName) {
  const ShardList list = small_model_shard(2, 1);
  const FileStamp stamp = write_state_file(path(), filled_shards(list, 1));
  EXPECT_EQ(stamp, stamp_of_file(path()));
  const StateFile file(path());
  EXPECT_THAT(file.entries(), UnorderedElementsAreArray(list));
  const SafetensorsFile raw(path());
  EXPECT_TRUE(raw.contains("layer.1.experts.down[5][0:7].v"));
  EXPECT_TRUE(raw.contains("layer.1.router_bias[0:6].master"));
  EXPECT_FALSE(raw.contains("layer.1.router_bias[0:6].m"));
}

TEST_F(StateFiles, AreReadInPieces) {
  const ShardEntry entry{"w", -1, 100, 10};
  write_state_file(path(), filled_shards({entry}, 1));
  const at::Tensor piece = at::empty({3}, at::kFloat);
  StateFile(path()).read(0, 2, 4, piece);
  for (int64_t i = 0; i < 3; ++i) {
    EXPECT_EQ(piece[i].item<float>(), state_value(entry, 2, 104 + i, 1));
  }
}

TEST_F(StateFiles, MayBeEmptyOrHoldEmptyShards) {
  write_state_file(path(), {});
  EXPECT_TRUE(StateFile(path()).entries().empty());
  write_state_file(path(), filled_shards({{"w", 3, 7, 0}}, 1));
  EXPECT_EQ(StateFile(path()).entries(), (ShardList{{"w", 3, 7, 0}}));
}

TEST_F(StateFiles, ShardsMustBeWhatTheirEntriesSay) {
  const auto refused = [&](const StateShard& shard) {
    return message_of<Error>([&] { write_state_file(path(), std::span(&shard, 1)); });
  };
  const at::Tensor four = at::arange(4, at::kFloat);
  const ShardEntry entry{"w", -1, 0, 4};
  EXPECT_THAT(refused({entry, at::arange(5, at::kFloat), four, four}), HasSubstr("w[0:4].master"));
  EXPECT_THAT(refused({entry, four, four.to(at::kDouble), four}), HasSubstr("w[0:4].m"));
  EXPECT_THAT(refused({entry, four, four, at::arange(3, at::kFloat)}), HasSubstr("w[0:4].v"));
  EXPECT_THAT(refused({entry, four, four, {}}), HasSubstr("one moment is missing"));
  EXPECT_THAT(refused({entry, {}, four, four}), HasSubstr("tensor is missing"));
  EXPECT_FALSE(std::filesystem::exists(path()));
  const std::vector<StateShard> twice = {{entry, four, {}, {}}, {entry, four, {}, {}}};
  EXPECT_THAT(message_of<FileError>([&] { write_state_file(path(), twice); }),
              HasSubstr("name is taken"));
}

TEST_F(StateFiles, OtherFilesAreRefused) {
  const auto error_of = [&] { return message_of<FileError>([&] { StateFile{path()}; }); };
  EXPECT_THAT(error_of(), HasSubstr("can not open the file"));
  const at::Tensor four = at::arange(4, at::kFloat);
  const auto write = [&](const std::string& name, const at::Tensor& tensor,
                         const std::string& format = "farskip-training-state-1") {
    const NamedTensor named{name, tensor};
    write_safetensors(path(), std::span(&named, 1), {{"format", format}});
  };
  write("w[0:4].master", four, "pt");
  EXPECT_THAT(error_of(), HasSubstr("not a rank's training state"));
  write("w[0:4].master", four.to(at::kBFloat16));
  EXPECT_THAT(error_of(), HasSubstr("found BF16 [4]"));
  write("w[0:5].master", four);
  EXPECT_THAT(error_of(), HasSubstr("tensor is not of a training state"));
  for (const char* name : {"w", "w.master", "w[0:4]", "w[0:4].momentum", "[0:4].m", "w[0:4]m"}) {
    write(name, four);
    EXPECT_THAT(error_of(), HasSubstr("tensor is not of a training state")) << name;
  }
  write("w[0:4].master", four);
  EXPECT_EQ(error_of(), "no error");
}

}  // namespace
}  // namespace farskip
