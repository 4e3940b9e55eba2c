#include "farskip/base/folders.h"

#include <fcntl.h>
#include <sys/file.h>

#include <algorithm>
#include <cerrno>
#include <cinttypes>
#include <cstdio>
#include <random>
#include <string>

#include "farskip/base/descriptor.h"
#include "farskip/base/error.h"

namespace farskip {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view partial_mark = ".partial-", removed_mark = ".removed-";

// "NAME<mark>RANDOM" beside `folder`, a name that no other process uses.
fs::path name_beside(const fs::path& folder, std::string_view mark) {
  std::random_device random;
  char text[17];
  std::snprintf(text, sizeof text, "%08" PRIx32 "%08" PRIx32, static_cast<uint32_t>(random()),
                static_cast<uint32_t>(random()));
  return folder.parent_path() / (folder.filename().string() + std::string(mark) + text);
}

// "folder/" and "folder" are one.
fs::path without_slash(const fs::path& folder) {
  return folder.has_filename() ? folder : folder.parent_path();
}

void remove_quietly(const fs::path& folder) {
  std::error_code ignored;
  fs::remove_all(folder, ignored);
}

}  // namespace

std::vector<fs::path> folder_entries(const fs::path& folder) {
  std::error_code error;
  std::vector<fs::path> entries;
  for (fs::directory_iterator each(folder, error), end; !error && each != end;
       each.increment(error)) {
    entries.push_back(each->path());
  }
  if (error) fail_on_path(folder, "can not read the folder", error.value());
  std::sort(entries.begin(), entries.end());
  return entries;
}

StagedFolder::StagedFolder(const fs::path& target) : target_(without_slash(target)) {
  path_ = name_beside(target_, partial_mark);
  std::error_code error;
  if (!fs::create_directory(path_, error)) {
    fail_on_path(target_, "can not create the folder", error ? error.value() : EEXIST,
                 "check that the folder around it exists and is writable");
  }
}

StagedFolder::~StagedFolder() {
  if (!path_.empty()) remove_quietly(path_);
}

void StagedFolder::put_in_place() {
  sync_folder(path_);
  if (::rename(path_.c_str(), target_.c_str()) != 0) {
    fail_on_path(target_, "can not put the folder in its place", errno);
  }
  path_.clear();
  sync_folder(target_.parent_path());
}

void StagedFolder::replace() {
  sync_folder(path_);
  if (::renameat2(AT_FDCWD, path_.c_str(), AT_FDCWD, target_.c_str(), RENAME_EXCHANGE) != 0) {
    fail_on_path(target_, "can not replace the folder", errno, "remove it first");
  }
  sync_folder(target_.parent_path());
  remove_quietly(path_);
  path_.clear();
}

void remove_folder_at_once(const fs::path& folder) {
  const fs::path aside = name_beside(without_slash(folder), removed_mark);
  if (::rename(folder.c_str(), aside.c_str()) != 0) {
    fail_on_path(folder, "can not remove the folder", errno);
  }
  sync_folder(aside.parent_path());
  remove_quietly(aside);
}

void remove_leftovers(const fs::path& parent, std::string_view prefix) {
  for (const fs::path& entry : folder_entries(parent)) {
    const std::string name = entry.filename().string();
    const bool marked = name.find(partial_mark) != std::string::npos ||
                        name.find(removed_mark) != std::string::npos;
    if (marked && name.starts_with(prefix)) remove_quietly(entry);
  }
}

FolderLock::FolderLock(const fs::path& folder)
    : descriptor_(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {
  if (descriptor_ < 0) fail_on_path(folder, "can not open the folder", errno);
  if (::flock(descriptor_, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
    ::close(descriptor_);
    throw FileError("folder is in use", {.where = folder.string(),
                                         .expected = "no other process that writes here",
                                         .found = "a lock held by one",
                                         .hint = "end the other run, or write to another folder"});
  }
}

FolderLock::~FolderLock() { ::close(descriptor_); }

}  // namespace farskip
