#include "farskip/io/checkpoint.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "checkpoint_tools.h"
#include "farskip/base/error.h"

namespace farskip {
namespace {

using testing::HasSubstr;

constexpr const char* index_name = "model.safetensors.index.json";

// Two shards, one tensor each, and an index that tests may spoil.
class ShardedCheckpoint : public testing::Test {
 protected:
  ShardedCheckpoint() {
    write_config(path(), "olmoe");
    write_tensors(path() / "one.safetensors", {{"a", at::arange(6, at::kFloat).view({3, 2})}});
    write_tensors(path() / "two.safetensors", {{"b", at::arange(4, at::kFloat)}});
    write_index({{"a", "one.safetensors"}, {"b", "two.safetensors"}});
  }

  const std::filesystem::path& path() const { return folder_.path(); }
  void write_index(const Json& map) const {
    write_json_file(path() / index_name, {{"metadata", Json::object()}, {"weight_map", map}});
  }
  std::string error() const {
    return message_of<FileError>([&] { Checkpoint checkpoint(path()); });
  }

 private:
  TemporaryFolder folder_;
};

TEST_F(ShardedCheckpoint, FindsTensorsInTheirShards) {
  const Checkpoint checkpoint(path());
  EXPECT_EQ(checkpoint.names(), (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(checkpoint.file_of("b").path().filename(), "two.safetensors");
  EXPECT_TRUE(at::equal(checkpoint.read("b", at::kFloat), at::arange(4, at::kFloat)));
  EXPECT_EQ(checkpoint.config().family, "olmoe");
}

TEST_F(ShardedCheckpoint, ReadsRowsConvertsAndCounts) {
  const Checkpoint checkpoint(path());
  const at::Tensor rows = at::empty({2, 2}, at::kBFloat16);
  checkpoint.read_rows("a", 1, 3, rows);
  EXPECT_TRUE(at::equal(rows.to(at::kFloat), at::arange(2, 6, at::kFloat).view({2, 2})));
  const at::Tensor transposed = at::empty({2, 1}, at::kFloat);
  checkpoint.read_rows("a", 0, 1, transposed.t());
  EXPECT_TRUE(at::equal(transposed.squeeze(1), at::arange(2, at::kFloat)));
  const at::Tensor part = at::empty({2}, at::kFloat);
  checkpoint.read_rows("b", 2, 4, part);
  EXPECT_TRUE(at::equal(part, at::arange(2, 4, at::kFloat)));
  EXPECT_EQ(checkpoint.bytes_read("a"), 24u);
  EXPECT_EQ(checkpoint.bytes_read("b"), 8u);
  EXPECT_EQ(checkpoint.bytes_read("nothing"), 0u);
}

TEST_F(ShardedCheckpoint, RefusesRowsThatAreNotThere) {
  const Checkpoint checkpoint(path());
  const at::Tensor rows = at::empty({2, 2}, at::kFloat);
  EXPECT_THROW(checkpoint.read_rows("a", 2, 4, rows), FileError);
  EXPECT_THROW(checkpoint.read_rows("a", -1, 1, rows), FileError);
  EXPECT_THROW(checkpoint.read_rows("a", 2, 1, rows), FileError);
  EXPECT_THROW(checkpoint.read_rows("a", 0, 3, rows), FileError);
  EXPECT_THROW(checkpoint.read_rows("c", 0, 2, rows), FileError);
  EXPECT_THROW(checkpoint.read("c", at::kFloat), FileError);
}

TEST_F(ShardedCheckpoint, MissingShard) {
  std::filesystem::remove(path() / "two.safetensors");
  EXPECT_THAT(error(), HasSubstr("two.safetensors"));
}

TEST_F(ShardedCheckpoint, TensorThatItsShardLacks) {
  write_index({{"a", "one.safetensors"}, {"b", "two.safetensors"}, {"c", "two.safetensors"}});
  EXPECT_THAT(error(), HasSubstr("c: index names a tensor that its shard lacks"));
  write_index({{"a", "two.safetensors"}, {"b", "one.safetensors"}});
  EXPECT_THAT(error(), HasSubstr("expected two.safetensors, found one.safetensors"));
}

TEST_F(ShardedCheckpoint, TensorThatTheIndexLacks) {
  write_tensors(path() / "two.safetensors",
                {{"b", at::arange(4, at::kFloat)}, {"z", at::arange(4, at::kFloat)}});
  EXPECT_THAT(error(), HasSubstr("z: tensor is not in the index"));
}

TEST_F(ShardedCheckpoint, TensorInTwoShards) {
  write_tensors(path() / "two.safetensors",
                {{"a", at::arange(4, at::kFloat)}, {"b", at::arange(4, at::kFloat)}});
  EXPECT_THAT(error(), HasSubstr("a: tensor is in two shards"));
}

TEST_F(ShardedCheckpoint, IndexThatLeavesTheFolder) {
  for (const char* shard :
       {"../one.safetensors", "/one.safetensors", "..", ".", "", "a/b", "a\\b"}) {
    write_index({{"a", shard}});
    EXPECT_THAT(error(), HasSubstr("shard is not in the folder")) << shard;
  }
  write_index({{"a", std::string("one\0", 4)}});
  EXPECT_THAT(error(), HasSubstr("shard is not in the folder"));
}

TEST_F(ShardedCheckpoint, IndexOfAnotherForm) {
  write_index({{"a", 3}});
  EXPECT_THAT(error(), HasSubstr("wrong shard"));
  for (const char* text : {"[]", "{}", "{\"weight_map\":[]}", "3", "null", "{"}) {
    write_file_atomically(path() / index_name, text);
    EXPECT_THAT(error(), HasSubstr(index_name)) << text;
  }
}

TEST_F(ShardedCheckpoint, ShardWithDamagedHeader) {
  write_file_atomically(path() / "two.safetensors", "not a safetensors file");
  EXPECT_THAT(error(), HasSubstr("two.safetensors"));
}

TEST(Checkpoint, FolderWithoutWhatItNeeds) {
  const TemporaryFolder folder;
  EXPECT_THROW(Checkpoint{folder.path() / "none"}, FileError);
  EXPECT_THROW(Checkpoint{folder.path()}, FileError);
  write_config(folder.path(), "olmoe");
  EXPECT_THAT(message_of<FileError>([&] { Checkpoint{folder.path()}; }), HasSubstr("neither"));
  EXPECT_THAT(message_of<FileError>([&] { Checkpoint{folder.path() / "config.json"}; }),
              HasSubstr("not a checkpoint folder"));
}

}  // namespace
}  // namespace farskip
