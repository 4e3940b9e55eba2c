#include "farskip/train/checkpoint_folder.h"

#include <algorithm>
#include <charconv>
#include <cinttypes>
#include <cstdio>
#include <string_view>

#include "farskip/base/error.h"
#include "farskip/base/folders.h"
#include "farskip/train/manifest.h"

namespace farskip {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view prefix = "step-";

struct Candidate {
  int64_t step = 0;
  bool finished = false;  // the name is that of a checkpoint, with nothing behind it
  fs::path folder;
};

std::optional<Candidate> parse(const fs::path& folder) {
  const std::string name = folder.filename().string();
  if (!name.starts_with(prefix)) return std::nullopt;
  Candidate candidate{.folder = folder};
  const auto [end, error] =
      std::from_chars(name.data() + prefix.size(), name.data() + name.size(), candidate.step);
  if (error != std::errc{} || candidate.step < 0) return std::nullopt;
  const std::string whole = checkpoint_name(candidate.step);
  if (!name.starts_with(whole)) return std::nullopt;
  candidate.finished = name == whole;
  if (!candidate.finished && !name.substr(whole.size()).starts_with(".partial-")) {
    return std::nullopt;
  }
  return candidate;
}

// Newest first; of one step the finished one first.
std::vector<Candidate> candidates_in(const fs::path& run_folder) {
  std::vector<Candidate> candidates;
  for (const fs::path& entry : folder_entries(run_folder)) {
    if (auto candidate = parse(entry)) candidates.push_back(std::move(*candidate));
  }
  std::sort(candidates.begin(), candidates.end(), [](const Candidate& a, const Candidate& b) {
    return std::pair(a.step, a.finished) > std::pair(b.step, b.finished);
  });
  return candidates;
}

// Why it can not be loaded; empty if nothing speaks against it.
std::string why_not_whole(const Candidate& candidate) {
  if (!candidate.finished) return "its writer did not finish";
  try {
    read_manifest(candidate.folder);
    return {};
  } catch (const Error& error) {
    return error.what();
  }
}

}  // namespace

std::string checkpoint_name(int64_t step) {
  char text[32];
  std::snprintf(text, sizeof text, "step-%08" PRId64, step);
  return text;
}

LatestCheckpoint find_latest_checkpoint(const fs::path& run_folder) {
  LatestCheckpoint latest;
  std::error_code ignored;
  if (!fs::exists(run_folder, ignored)) return latest;
  for (const Candidate& candidate : candidates_in(run_folder)) {
    const std::string why = why_not_whole(candidate);
    if (why.empty()) {
      latest.folder = candidate.folder;
      break;
    }
    latest.skipped.push_back({candidate.folder, why});
  }
  return latest;
}

void check(const Retention& retention) {
  const bool wrong_count = retention.keep < 1;
  if (!wrong_count && retention.keep_every >= 0) return;
  throw ConfigError("wrong value",
                    {.where = wrong_count ? "checkpoints to keep" : "checkpoints to keep for ever",
                     .expected = wrong_count ? "at least 1" : "every n-th step, or 0 for none",
                     .found = std::to_string(wrong_count ? retention.keep : retention.keep_every)});
}

void remove_old_checkpoints(const fs::path& run_folder, int64_t step, const Retention& retention) {
  check(retention);
  int whole = 0;
  for (const Candidate& candidate : candidates_in(run_folder)) {
    if (candidate.step > step || !candidate.finished) continue;
    if (whole < retention.keep) {
      whole += why_not_whole(candidate).empty() ? 1 : 0;
      continue;
    }
    if (retention.keep_every > 0 && candidate.step % retention.keep_every == 0) continue;
    try {
      remove_folder_at_once(candidate.folder);
    } catch (const FileError&) {
      // It stays until a later call can remove it.
    }
  }
}

}  // namespace farskip
