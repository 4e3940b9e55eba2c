#include "farskip/train/checkpoint_folder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "../base/read_only_folder.h"
#include "../base/temporary_folder.h"
#include "farskip/base/error.h"
#include "farskip/base/files.h"
#include "farskip/base/folders.h"
#include "farskip/train/manifest.h"

namespace farskip {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class RunFolder : public testing::Test {
 protected:
  const fs::path& path() const { return folder_.path(); }
  fs::path add(int64_t step, const std::string& behind = "") const {
    const fs::path folder = path() / (checkpoint_name(step) + behind);
    fs::create_directory(folder);
    write_file_atomically(folder / shard_file_name(0), "state");
    write_manifest(folder, {.point = {.step = step}, .files = {{5, 0}}});
    return folder;
  }
  std::vector<std::string> names() const {
    std::vector<std::string> names;
    for (const fs::path& entry : folder_entries(path())) names.push_back(entry.filename());
    return names;
  }
  std::vector<int64_t> steps() const {
    std::vector<int64_t> steps;
    for (const std::string& name : names()) steps.push_back(std::stoll(name.substr(5)));
    return steps;
  }

  TemporaryFolder folder_;
};

TEST_F(RunFolder, NamesSortByStep) {
  EXPECT_EQ(checkpoint_name(0), "step-00000000");
  EXPECT_EQ(checkpoint_name(1000), "step-00001000");
  EXPECT_EQ(checkpoint_name(1234567890), "step-1234567890");
}

TEST_F(RunFolder, WithoutCheckpoints) {
  EXPECT_EQ(find_latest_checkpoint(path()).folder, std::nullopt);
  const LatestCheckpoint none = find_latest_checkpoint(path() / "missing");
  EXPECT_EQ(none.folder, std::nullopt);
  EXPECT_THAT(none.skipped, IsEmpty());
  write_file_atomically(path() / "file", "");
  EXPECT_THROW(find_latest_checkpoint(path() / "file"), FileError);
}

TEST_F(RunFolder, LatestIsTheHighestStep) {
  add(99'999'999);
  const fs::path newest = add(100'000'000);
  add(7);
  const LatestCheckpoint latest = find_latest_checkpoint(path());
  EXPECT_EQ(latest.folder, newest);
  EXPECT_THAT(latest.skipped, IsEmpty());
}

TEST_F(RunFolder, NewerOnesAreSkippedWithTheReason) {
  const fs::path good = add(10);
  write_file_atomically(add(20) / shard_file_name(0), "cut");
  fs::remove(add(30) / "manifest.json");
  add(40, ".partial-0123");
  fs::remove(add(50) / shard_file_name(0));
  fs::remove_all(add(5));  // older: nobody looks at it
  const LatestCheckpoint latest = find_latest_checkpoint(path());
  EXPECT_EQ(latest.folder, good);
  ASSERT_EQ(latest.skipped.size(), 4U);
  EXPECT_THAT(latest.skipped[0].why, HasSubstr("rank-00000.safetensors: shard can not be read"));
  EXPECT_EQ(latest.skipped[1].folder.filename(), "step-00000040.partial-0123");
  EXPECT_THAT(latest.skipped[1].why, HasSubstr("did not finish"));
  EXPECT_THAT(latest.skipped[2].why, HasSubstr("manifest.json"));
  EXPECT_THAT(latest.skipped[3].why, HasSubstr("shard has another size"));
}

TEST_F(RunFolder, OtherNamesAreNoCheckpoints) {
  for (const char* name : {"step-", "step-1", "step-000000010", "step-0000001x",
                           "step-00000010.old", "step-00000010.removed-0123", "step--0000010",
                           "x-step-00000010", "step-99999999999999999999"}) {
    fs::rename(add(10), path() / name);
  }
  const LatestCheckpoint latest = find_latest_checkpoint(path());
  EXPECT_EQ(latest.folder, std::nullopt);
  EXPECT_THAT(latest.skipped, IsEmpty());
}

TEST_F(RunFolder, NewestAndEveryNthAreKept) {
  for (int64_t step = 1; step <= 12; ++step) add(step);
  remove_old_checkpoints(path(), 12, {.keep = 2, .keep_every = 5});
  EXPECT_THAT(steps(), ElementsAre(5, 10, 11, 12));
  remove_old_checkpoints(path(), 12, {.keep = 1});
  EXPECT_THAT(steps(), ElementsAre(12));
  remove_old_checkpoints(path(), 12, {.keep = 100});
  EXPECT_THAT(steps(), ElementsAre(12));
}

TEST_F(RunFolder, DamagedOnesDoNotCountAsKept) {
  for (int64_t step = 1; step <= 5; ++step) add(step);
  for (const int64_t step : {2, 4}) fs::remove(path() / checkpoint_name(step) / "manifest.json");
  remove_old_checkpoints(path(), 5, {.keep = 2});
  EXPECT_THAT(steps(), ElementsAre(3, 4, 5));
}

TEST_F(RunFolder, LaterStepsAreLeftAlone) {
  for (int64_t step = 1; step <= 5; ++step) add(step);
  remove_old_checkpoints(path(), 3, {.keep = 1});
  EXPECT_THAT(steps(), ElementsAre(3, 4, 5));
}

TEST_F(RunFolder, WhatCanNotBeRemovedStays) {
  for (int64_t step = 1; step <= 3; ++step) add(step);
  {
    const ReadOnlyFolder locked(path());
    EXPECT_NO_THROW(remove_old_checkpoints(path(), 3, {.keep = 1}));
  }
  EXPECT_THAT(steps(), ElementsAre(1, 2, 3));
}

TEST_F(RunFolder, RetentionThatMakesNoSense) {
  EXPECT_THROW(remove_old_checkpoints(path(), 1, {.keep = 0}), ConfigError);
  EXPECT_THROW(remove_old_checkpoints(path(), 1, {.keep = 1, .keep_every = -1}), ConfigError);
  EXPECT_THROW(remove_old_checkpoints(path() / "missing", 1, {}), FileError);
}

}  // namespace
}  // namespace farskip
