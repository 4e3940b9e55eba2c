#include <optional>

#include "farskip/base/error.h"
#include "farskip/base/format.h"
#include "farskip/train/checkpoint.h"

namespace farskip {

namespace fs = std::filesystem;

namespace {

std::vector<StateFile> open_files(const fs::path& folder, int ranks) {
  std::vector<StateFile> files;
  for (int rank = 0; rank < ranks; ++rank) files.emplace_back(folder / shard_file_name(rank));
  return files;
}

std::vector<ShardList> entries_of(const std::vector<StateFile>& files) {
  std::vector<ShardList> lists;
  for (const StateFile& file : files) lists.push_back(file.entries());
  return lists;
}

}  // namespace

TrainingCheckpoint::TrainingCheckpoint(const fs::path& folder)
    : folder_(folder),
      manifest_(read_manifest(folder)),
      files_(open_files(folder, ranks())),
      saved_(entries_of(files_)) {}

void TrainingCheckpoint::check_model(uint64_t model_fingerprint) const {
  if (point().model_fingerprint == model_fingerprint) return;
  throw ConfigError("checkpoint is of another model",
                    {.where = folder_.string(),
                     .expected = "model fingerprint " + std::to_string(model_fingerprint),
                     .found = std::to_string(point().model_fingerprint),
                     .hint = "its config.json stands in manifest.json"});
}

void TrainingCheckpoint::check_files(int part, int parts) const {
  for (int rank = part; rank < ranks(); rank += parts) {
    const fs::path file = folder_ / shard_file_name(rank);
    const FileStamp stated = manifest_.files[static_cast<size_t>(rank)];
    const FileStamp found = stamp_of_file(file);
    if (found == stated) continue;
    throw FileError("shard is damaged",
                    {.where = file.string(),
                     .expected = "checksum " + std::to_string(stated.checksum) + " of " +
                                 format_integer(static_cast<int64_t>(stated.bytes)) + " bytes",
                     .found = std::to_string(found.checksum) + " of " +
                              format_integer(static_cast<int64_t>(found.bytes)),
                     .hint = "use an older checkpoint"});
  }
}

void TrainingCheckpoint::read(std::span<const StateShard> shards) const {
  ShardList needed;
  for (const StateShard& shard : shards) {
    check_shard(shard);
    needed.push_back(shard.entry);
  }
  for (const ShardCopy& copy : saved_.plan(needed)) {
    const std::array<at::Tensor, 3> tensors = tensors_of(shards[copy.to.entry]);
    for (size_t part = 0; part < tensors.size(); ++part) {
      if (!tensors[part].defined()) continue;
      files_[copy.file].read(copy.from.entry, part, copy.from.offset,
                             tensors[part].narrow(0, copy.to.offset, copy.count));
    }
  }
}

TrainingPoint load_checkpoint(const fs::path& folder, uint64_t model_fingerprint,
                              std::span<const StateShard> shards, const RankMeeting& meeting) {
  std::optional<TrainingCheckpoint> checkpoint;
  work_and_meet(meeting, [&]() -> Json {
    checkpoint.emplace(folder);
    checkpoint->check_model(model_fingerprint);
    checkpoint->check_files(meeting.rank, meeting.ranks);
    return {};
  });
  work_and_meet(meeting, [&]() -> Json {
    checkpoint->read(shards);
    return {};
  });
  return checkpoint->point();
}

}  // namespace farskip
