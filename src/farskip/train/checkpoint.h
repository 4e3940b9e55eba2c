#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <vector>

#include "farskip/train/checkpoint_folder.h"
#include "farskip/train/manifest.h"
#include "farskip/train/rank_meeting.h"
#include "farskip/train/state_file.h"

namespace farskip {

// A training checkpoint is a folder of a run folder, in which every rank has one file:
//
//   RUN/step-00001000/manifest.json            where the run stands, sizes and checksums of files
//   RUN/step-00001000/rank-00000.safetensors   master, m and v of what the rank keeps
//   (state_file.h)
//
// It is written aside, flushed, and renamed when whole, so that a process that is killed, or a disk
// that is full, at any moment leaves the last good checkpoint as it was. One run at a time writes
// into a run folder.

// Saves a checkpoint. Every rank of the run calls it with its own shards, on one file system;
// together they hold every element once. Rank 0's `point` counts; all must be at the same step. An
// older checkpoint of that step is replaced. Then removes what `retention` does not keep, and what
// killed processes left. Returns the checkpoint's folder.
// Throws, on every rank, FileError (disk, permissions, another run that is saving here),
// ConfigError (ranks at different steps, retention), Error (tensors of another shape or dtype than
// their entry): the rank that met it throws that, the others FileError naming that rank; nothing is
// left of the checkpoint then. Throws what the meeting throws.
std::filesystem::path save_checkpoint(const std::filesystem::path& run_folder,
                                      const TrainingPoint& point,
                                      std::span<const StateShard> shards,
                                      const Retention& retention, const RankMeeting& meeting = {});

// A checkpoint that was opened. Const members may be called from any thread.
class TrainingCheckpoint {
 public:
  // Reads the manifest and the headers of all files. Throws as read_manifest and StateFile.
  explicit TrainingCheckpoint(const std::filesystem::path& folder);

  const TrainingPoint& point() const { return manifest_.point; }
  int ranks() const { return manifest_.ranks(); }

  // Throws ConfigError if it is of a model that computes something else.
  void check_model(uint64_t model_fingerprint) const;
  // Reads the files of ranks part, part + parts, ... and compares their checksums. Throws
  // FileError.
  void check_files(int part = 0, int parts = 1) const;
  // Fills the tensors of `shards` from wherever their elements were saved; moments that are
  // undefined are left out. Throws ConfigError for elements that no rank saved, FileError for
  // moments that were not saved, Error as
  // check_shard.
  void read(std::span<const StateShard> shards) const;

 private:
  std::filesystem::path folder_;
  Manifest manifest_;
  std::vector<StateFile> files_;
  SavedShards saved_;
};

// Loads a checkpoint into the shards of every rank of a run, however many ranks saved it. Each rank
// checks its share of the files, all are checked before anything is read. Returns where the saved
// run stood. Throws, on every rank, as the members of TrainingCheckpoint and work_and_meet.
TrainingPoint load_checkpoint(const std::filesystem::path& folder, uint64_t model_fingerprint,
                              std::span<const StateShard> shards, const RankMeeting& meeting = {});

}  // namespace farskip
