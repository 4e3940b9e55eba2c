#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "../base/temporary_folder.h"
#include "farskip/base/folders.h"
#include "farskip/base/random.h"
#include "farskip/train/checkpoint.h"
#include "state_of_model.h"
#include "thread_meeting.h"

namespace farskip {
namespace {

// A number that a child process tells its parent.
class SharedNumber {
 public:
  SharedNumber()
      : number_(static_cast<std::atomic<int64_t>*>(::mmap(nullptr, sizeof(std::atomic<int64_t>),
                                                          PROT_READ | PROT_WRITE,
                                                          MAP_SHARED | MAP_ANONYMOUS, -1, 0))) {}
  ~SharedNumber() { ::munmap(number_, sizeof *number_); }
  SharedNumber(const SharedNumber&) = delete;
  SharedNumber& operator=(const SharedNumber&) = delete;

  std::atomic<int64_t>& operator*() const { return *number_; }

 private:
  std::atomic<int64_t>* number_;
};

// Saves one step after the other for ever, on two ranks, and notes each in `saved` once it is done.
[[noreturn]] void save_for_ever(const std::filesystem::path& run, int64_t first,
                                std::atomic<int64_t>& saved) {
  run_meeting(2, [&](const RankMeeting& meeting) {
    const ShardList list = small_model_shard(2, meeting.rank);
    for (int64_t step = first;; ++step) {
      const TrainingPoint point{.step = step, .model_config = "{}"};
      save_checkpoint(run, point, filled_shards(list, step), {.keep = 2}, meeting);
      if (meeting.rank == 0) saved = step;
    }
  });
  ::_exit(1);
}

// Kills the process some time after it has saved a step beyond `step`; false if it ended by itself.
bool killed_after(pid_t child, const std::atomic<int64_t>& saved, int64_t step,
                  uint64_t microseconds) {
  int status = 0;
  while (saved <= step) {
    if (::waitpid(child, &status, WNOHANG) != 0) return false;
    std::this_thread::sleep_for(std::chrono::microseconds(100));
  }
  std::this_thread::sleep_for(std::chrono::microseconds(microseconds));
  ::kill(child, SIGKILL);
  ::waitpid(child, &status, 0);
  return WIFSIGNALED(status);
}

// What bears a checkpoint's name is one, old ones too that were about to be removed.
void expect_whole_checkpoints(const std::filesystem::path& run) {
  for (const auto& entry : folder_entries(run)) {
    if (entry.has_extension()) continue;
    EXPECT_NO_THROW(TrainingCheckpoint{entry}) << entry;
  }
}

// A process is killed at 50 random moments, each time another one goes on behind what it left.
TEST(KilledWriter, LeavesTheLastGoodCheckpoint) {
  const TemporaryFolder folder;
  const SharedNumber saved;
  Random random(11);
  int64_t latest_step = 0;
  int leftovers = 0;
  for (int round = 0; round < 50; ++round) {
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) save_for_ever(folder.path(), latest_step + 1, *saved);
    ASSERT_TRUE(killed_after(child, *saved, latest_step, random.below(40'000)));
    expect_whole_checkpoints(folder.path());
    const LatestCheckpoint latest = find_latest_checkpoint(folder.path());
    ASSERT_TRUE(latest.folder);
    const auto shards = empty_shards(small_model_shard(1, 0));
    latest_step = load_checkpoint(*latest.folder, 0, shards).step;
    ASSERT_GE(latest_step, *saved) << "one that was saved is gone";
    ASSERT_EQ(wrong_elements(shards, latest_step), 0);
    for (const auto& skipped : latest.skipped) EXPECT_EQ(skipped.why, "its writer did not finish");
    leftovers += !latest.skipped.empty();
  }
  EXPECT_GT(leftovers, 0) << "no kill came between the start and the end of a save";
  const auto shards = filled_shards(small_model_shard(1, 0), 1);
  save_checkpoint(folder.path(), {.step = latest_step + 1}, shards, {.keep = 1});
  EXPECT_EQ(folder_entries(folder.path()).size(), 1U) << "leftovers are cleaned";
}

}  // namespace
}  // namespace farskip
