#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace farskip {

// A run folder holds checkpoints as folders named by their step. They come and go whole (see
// base/folders.h), so what bears such a name was whole once.

// "step-00001000" for 1000; at least eight digits.
std::string checkpoint_name(int64_t step);

// The newest checkpoint whose manifest reads well and whose files are all there with the stated
// sizes, and why newer ones are none. Checksums are not looked at: loading does that.
struct LatestCheckpoint {
  struct Skipped {
    std::filesystem::path folder;
    std::string why;
  };
  std::optional<std::filesystem::path> folder;
  std::vector<Skipped> skipped;  // newest first
};

// A run folder that does not exist has none. Throws FileError if it can not be read.
LatestCheckpoint find_latest_checkpoint(const std::filesystem::path& run_folder);

// Which older checkpoints stay: the newest `keep`, and those of steps divisible by keep_every.
struct Retention {
  int keep = 3;
  int64_t keep_every = 0;  // 0: none besides
};

// Throws ConfigError for keep < 1 or keep_every < 0.
void check(const Retention& retention);

// Removes what need not stay of the checkpoints up to `step`, counting only whole ones among the
// newest. Later ones, of a run that went back to an earlier step, are left alone, and so is what
// can not be removed. Throws FileError if the run folder can not be read.
void remove_old_checkpoints(const std::filesystem::path& run_folder, int64_t step,
                            const Retention& retention);

}  // namespace farskip
