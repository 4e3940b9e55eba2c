#include "farskip/train/checkpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "../base/full_disk.h"
#include "../base/read_only_folder.h"
#include "../io/checkpoint_tools.h"
#include "farskip/base/error.h"
#include "farskip/base/folders.h"
#include "farskip/base/random.h"
#include "farskip/comm/local.h"
#include "farskip/comm/ranks.h"
#include "farskip/train/training_ranks.h"
#include "state_of_model.h"
#include "thread_meeting.h"

namespace farskip {
namespace {

namespace fs = std::filesystem;
using testing::Each;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr uint64_t model = 0xABCDEF;

TrainingPoint point_at(int64_t step) {
  return {.step = step,
          .tokens = 100 * step,
          .model_config = "{}",
          .model_fingerprint = model,
          .connectivity = {{"name", "farskip"}},
          .data_position = step};
}

class TrainingCheckpoints : public testing::Test {
 protected:
  const fs::path& path() const { return folder_.path(); }
  fs::path at_step(int64_t step) const { return path() / checkpoint_name(step); }
  std::vector<std::string> names() const {
    std::vector<std::string> names;
    for (const fs::path& entry : folder_entries(path())) names.push_back(entry.filename());
    return names;
  }

  // The state of a step is the one that the step names.
  Outcomes save(int ranks, int64_t step, const Retention& retention = {}) const {
    return run_meeting(ranks, [&](const RankMeeting& meeting) {
      const auto shards = filled_shards(small_model_shard(ranks, meeting.rank), step);
      save_checkpoint(path(), point_at(step), shards, retention, meeting);
    });
  }
  // Loads on `ranks` ranks and expects every element there.
  Outcomes load(int ranks, int64_t step) const {
    return run_meeting(ranks, [&](const RankMeeting& meeting) {
      const auto shards = empty_shards(small_model_shard(ranks, meeting.rank));
      const TrainingPoint point = load_checkpoint(at_step(step), model, shards, meeting);
      EXPECT_EQ(point.tokens, 100 * step);
      EXPECT_EQ(wrong_elements(shards, step), 0) << "rank " << meeting.rank;
    });
  }

  TemporaryFolder folder_;
};

TEST_F(TrainingCheckpoints, AreLoadedOnAnyNumberOfRanks) {
  for (const int saved : {1, 2, 3, 6}) {
    EXPECT_THAT(save(saved, saved), Each(IsEmpty()));
    for (const int loaded : {1, 2, 4, 5}) EXPECT_THAT(load(loaded, saved), Each(IsEmpty()));
  }
}

TEST_F(TrainingCheckpoints, RanksMayMeetOverAGroup) {
  run_ranks(make_local_groups(3), [&](Group& group) {
    const ShardList list = small_model_shard(3, group.rank());
    const RankMeeting meeting = TrainingRanks(group).meeting(7);
    save_checkpoint(path(), point_at(4), filled_shards(list, 4), {}, meeting);
    const auto shards = empty_shards(list);
    EXPECT_EQ(load_checkpoint(at_step(4), model, shards, meeting).step, 4);
    EXPECT_EQ(wrong_elements(shards, 4), 0);
    EXPECT_THROW(load_checkpoint(at_step(5), model, shards, meeting), FileError);
  });
}

TEST_F(TrainingCheckpoints, WhatComputesIsPutTogetherToo) {
  save(4, 1);
  const ShardList whole =
      held_entries(small_model(), Placement::from_table({{1, 4}, {0, 2, 3, 5}}), 0);
  std::vector<StateShard> shards = empty_shards(whole);
  for (StateShard& shard : shards) shard.m = shard.v = at::Tensor();  // to export, say
  TrainingCheckpoint(at_step(1)).read(shards);
  EXPECT_EQ(wrong_elements(shards, 1), 0);
}

TEST_F(TrainingCheckpoints, ReplicatedStateMayBeSavedByEveryRank) {
  const ShardList list = {{"w", -1, 0, 9}};
  run_meeting(2, [&](const RankMeeting& meeting) {
    save_checkpoint(path(), point_at(1), filled_shards(list, 1), {}, meeting);
  });
  const auto shards = empty_shards(list);
  load_checkpoint(at_step(1), model, shards);
  EXPECT_EQ(wrong_elements(shards, 1), 0);
}

TEST_F(TrainingCheckpoints, NewestAreKeptAndLeftoversGo) {
  fs::create_directory(path() / "step-00000001.partial-dead");
  fs::create_directory(path() / "step-00000009.removed-dead");
  for (int64_t step = 1; step <= 6; ++step) {
    EXPECT_THAT(save(2, step, {.keep = 2, .keep_every = 3}), Each(IsEmpty()));
  }
  EXPECT_THAT(names(), ElementsAre("step-00000003", "step-00000005", "step-00000006"));
  EXPECT_EQ(find_latest_checkpoint(path()).folder, at_step(6));
}

TEST_F(TrainingCheckpoints, TheSameStepIsReplaced) {
  save(1, 5);
  const auto other = filled_shards(small_model_shard(1, 0), 77);
  save_checkpoint(path(), point_at(5), other, {});
  const auto shards = empty_shards(small_model_shard(1, 0));
  load_checkpoint(at_step(5), model, shards);
  EXPECT_EQ(wrong_elements(shards, 77), 0);
  EXPECT_THAT(names(), ElementsAre("step-00000005"));
}

TEST_F(TrainingCheckpoints, RunFolderIsMade) {
  const fs::path run = path() / "runs" / "first";
  EXPECT_EQ(save_checkpoint(run, point_at(1), {}, {}), run / "step-00000001");
}

TEST_F(TrainingCheckpoints, OneRankThatFailsFailsAll) {
  save(2, 1);
  const Outcomes outcomes = run_meeting(2, [&](const RankMeeting& meeting) {
    auto shards = filled_shards(small_model_shard(2, meeting.rank), 2);
    if (meeting.rank == 1) shards[0].master = at::arange(1, at::kFloat);
    save_checkpoint(path(), point_at(2), shards, {}, meeting);
  });
  EXPECT_THAT(outcomes[1], HasSubstr("wrong shape"));
  EXPECT_THAT(outcomes[0], HasSubstr("rank 1: another rank failed"));
  EXPECT_THAT(names(), ElementsAre("step-00000001"));
  EXPECT_THAT(load(1, 1), Each(IsEmpty()));
}

TEST_F(TrainingCheckpoints, RanksMustBeAtTheSameStep) {
  const Outcomes outcomes = run_meeting(2, [&](const RankMeeting& meeting) {
    save_checkpoint(path(), point_at(10 + meeting.rank), {}, {}, meeting);
  });
  EXPECT_THAT(outcomes, Each(HasSubstr("ranks are not at the same step (expected step 10")));
  EXPECT_THAT(names(), IsEmpty());
}

TEST_F(TrainingCheckpoints, FullDiskLeavesTheLastGoodOne) {
  save(2, 1);
  const uint64_t size = fs::file_size(at_step(1) / shard_file_name(0));
  // No room for any shard, and none for the last byte of the first.
  for (const uint64_t room : {uint64_t{0}, size - 1}) {
    Outcomes outcomes;
    {
      const FullDisk full(room);
      outcomes = save(2, 2);
    }
    EXPECT_THAT(outcomes, Each(testing::AnyOf(HasSubstr("can not write the file"),
                                              HasSubstr("another rank failed"))));
    EXPECT_THAT(names(), ElementsAre("step-00000001"));
    EXPECT_THAT(load(2, 1), Each(IsEmpty()));
  }
}

TEST_F(TrainingCheckpoints, NoRoomForTheManifest) {
  save(1, 1);
  const auto shards = std::span<const StateShard>();
  TrainingPoint point = point_at(2);
  point.model_config = std::string(100'000, 'x');
  std::string error;
  {
    const FullDisk full(50'000);
    error = message_of<FileError>([&] { save_checkpoint(path(), point, shards, {}); });
  }
  EXPECT_THAT(error, HasSubstr("manifest.json: can not write the file"));
  EXPECT_THAT(names(), ElementsAre("step-00000001"));
}

TEST_F(TrainingCheckpoints, ReadOnlyFolderLeavesTheLastGoodOne) {
  save(1, 1);
  const auto shards = filled_shards(small_model_shard(1, 0), 2);
  std::string error;
  {
    const ReadOnlyFolder locked(path());
    error = message_of<FileError>([&] { save_checkpoint(path(), point_at(2), shards, {}); });
  }
  EXPECT_THAT(error, HasSubstr("step-00000002: can not create the folder (found Permission"));
  EXPECT_THAT(names(), ElementsAre("step-00000001"));
  EXPECT_THAT(load(1, 1), Each(IsEmpty()));
}

TEST_F(TrainingCheckpoints, AnotherRunThatSavesHereIsNoticed) {
  save(1, 1);
  const FolderLock other(path());
  EXPECT_THAT(save(2, 2), ElementsAre(HasSubstr("folder is in use"), HasSubstr("rank 0")));
  EXPECT_THAT(names(), ElementsAre("step-00000001"));
}

TEST_F(TrainingCheckpoints, StatesThatCouldNotBeReadAreNotSaved) {
  TrainingPoint point = point_at(3);
  point.tokens = -1;
  EXPECT_THROW(save_checkpoint(path(), point, {}, {}), ConfigError);
  EXPECT_THROW(save_checkpoint(path(), point_at(3), {}, {.keep = 0}), ConfigError);
  EXPECT_THAT(names(), IsEmpty());
}

TEST_F(TrainingCheckpoints, OtherModelsAreRefused) {
  save(1, 1);
  const auto shards = empty_shards(small_model_shard(1, 0));
  EXPECT_THAT(message_of<ConfigError>([&] { load_checkpoint(at_step(1), model + 1, shards); }),
              HasSubstr("checkpoint is of another model"));
  const auto unknown = empty_shards({{"layer.2.router", -1, 0, 3}});
  EXPECT_THAT(message_of<ConfigError>([&] { load_checkpoint(at_step(1), model, unknown); }),
              HasSubstr("layer.2.router[0:3]: saved state lacks"));
}

TEST_F(TrainingCheckpoints, MomentsThatWereNotSavedAreMissed) {
  const at::Tensor weights = at::arange(4, at::kFloat);
  const StateShard saved{.entry = {"w", -1, 0, 4}, .master = weights};
  save_checkpoint(path(), point_at(1), std::span(&saved, 1), {});
  const StateShard wanted{{"w", -1, 0, 4}, weights.clone(), weights.clone(), weights.clone()};
  EXPECT_THAT(
      message_of<FileError>([&] { load_checkpoint(at_step(1), model, std::span(&wanted, 1)); }),
      HasSubstr("expected w[0:4].m"));
}

TEST_F(TrainingCheckpoints, AMissingShardIsNamed) {
  save(3, 1);
  fs::remove(at_step(1) / shard_file_name(2));
  EXPECT_THAT(load(2, 1), Each(HasSubstr("rank-00002.safetensors: shard can not be read")));
}

TEST_F(TrainingCheckpoints, AnyDamagedByteIsFound) {
  save(2, 1);
  const fs::path file = at_step(1) / shard_file_name(1);
  const std::string whole = read_file(file);
  Random random(1);
  for (int round = 0; round < 60; ++round) {
    std::string damaged = whole;
    damaged[random.below(damaged.size())] ^= static_cast<char>(1 + random.below(255));
    write_file_atomically(file, damaged);
    for (const std::string& outcome : load(2, 1)) EXPECT_NE(outcome, "");
  }
  write_file_atomically(file, whole);
  EXPECT_THAT(load(2, 1), Each(IsEmpty()));
  std::string exchanged = whole;
  exchanged.back() ^= 1;  // a value: nothing but the checksum can tell
  write_file_atomically(file, exchanged);
  EXPECT_THAT(load(2, 1), ElementsAre(HasSubstr("rank 1: another rank failed"),
                                      HasSubstr("rank-00001.safetensors: shard is damaged")));
}

}  // namespace
}  // namespace farskip
