#include <optional>

#include "farskip/base/descriptor.h"
#include "farskip/base/error.h"
#include "farskip/base/folders.h"
#include "farskip/train/checkpoint.h"

namespace farskip {
namespace {

namespace fs = std::filesystem;

// What rank 0 holds while a checkpoint is written.
class Writing {
 public:
  Writing(const fs::path& run_folder, const std::string& name) : target_(run_folder / name) {
    std::error_code error;
    fs::create_directories(run_folder, error);
    if (error) fail_on_path(run_folder, "can not create the folder", error.value());
    lock_.emplace(run_folder);
    // Nobody else writes here now: what is unfinished was left by the dead.
    remove_leftovers(run_folder, "step-");
    staged_.emplace(target_);
  }

  const fs::path& folder() const { return staged_->path(); }

  void finish(const Manifest& manifest) {
    write_manifest(folder(), manifest);
    read_manifest(folder());
    std::error_code ignored;
    if (fs::exists(target_, ignored)) {
      staged_->replace();
    } else {
      staged_->put_in_place();
    }
  }

 private:
  fs::path target_;
  std::optional<FolderLock> lock_;
  std::optional<StagedFolder> staged_;
};

void check_steps(const std::vector<Json>& of_ranks) {
  for (size_t rank = 1; rank < of_ranks.size(); ++rank) {
    if (of_ranks[rank].at("step") == of_ranks[0].at("step")) continue;
    throw ConfigError("ranks are not at the same step",
                      {.where = "rank " + std::to_string(rank),
                       .expected = "step " + of_ranks[0].at("step").dump(),
                       .found = of_ranks[rank].at("step").dump()});
  }
}

}  // namespace

fs::path save_checkpoint(const fs::path& run_folder, const TrainingPoint& point,
                         std::span<const StateShard> shards, const Retention& retention,
                         const RankMeeting& meeting) {
  const std::string name = checkpoint_name(point.step);
  std::optional<Writing> writing;
  const auto begun = work_and_meet(meeting, [&] {
    check(retention);
    Json result = {{"step", point.step}};
    if (meeting.rank == 0) {
      writing.emplace(run_folder, name);
      result["folder"] = writing->folder().filename().string();
    }
    return result;
  });
  check_steps(begun);
  const fs::path folder = run_folder / begun[0].at("folder").get<std::string>();

  const auto written = work_and_meet(meeting, [&]() -> Json {
    const FileStamp stamp = write_state_file(folder / shard_file_name(meeting.rank), shards);
    return {{"bytes", stamp.bytes}, {"checksum", stamp.checksum}};
  });

  work_and_meet(meeting, [&]() -> Json {
    if (meeting.rank != 0) return {};
    Manifest manifest{.point = point};
    for (const Json& file : written) {
      manifest.files.push_back(
          {file.at("bytes").get<uint64_t>(), file.at("checksum").get<uint64_t>()});
    }
    writing->finish(manifest);
    remove_old_checkpoints(run_folder, point.step, retention);
    return {};
  });
  return run_folder / name;
}

}  // namespace farskip
