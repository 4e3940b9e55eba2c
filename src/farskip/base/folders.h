#pragma once

#include <filesystem>
#include <string_view>
#include <vector>

namespace farskip {

// Everything in a folder, in order of name. Throws FileError if it can not be read. Any thread.
std::vector<std::filesystem::path> folder_entries(const std::filesystem::path& folder);

// A folder that is filled aside and takes its place whole: it is made as TARGET.partial-RANDOM
// beside the target and renamed when all of it is there. What a killed process leaves bears such a
// name, which remove_leftovers finds. One thread; others may write files into path() meanwhile.
class StagedFolder {
 public:
  // Throws FileError if it can not be made.
  explicit StagedFolder(const std::filesystem::path& target);
  // Removes the folder and all in it, unless it took its place.
  ~StagedFolder();
  StagedFolder(const StagedFolder&) = delete;
  StagedFolder& operator=(const StagedFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }

  // Flushes the folder to the disk and renames it to the target: an empty folder there is replaced.
  // Throws FileError, with the target as it was, if anything else stands there or the system
  // refuses. The files in it must have been flushed, as write_file_atomically does.
  void put_in_place();
  // The same where a folder stands at the target: the two change places in one step, and the older
  // one is removed. Throws FileError, with the target as it was.
  void replace();

 private:
  std::filesystem::path target_;
  std::filesystem::path path_;  // empty once it took its place
};

// Removes a folder such that it is at every moment whole or gone: it is first renamed to
// NAME.removed-RANDOM. Throws FileError if that fails; what can not be deleted afterwards stays for
// remove_leftovers.
void remove_folder_at_once(const std::filesystem::path& folder);

// Deletes what killed processes left of staged and removed folders of names that start with
// `prefix`; what can not be deleted stays. Throws FileError if `parent` can not be read.
void remove_leftovers(const std::filesystem::path& parent, std::string_view prefix);

// Holds off other processes, and other locks of this one, that lock the same folder; let go by the
// destructor, or by the system when the process ends in any way.
class FolderLock {
 public:
  // Throws FileError if the folder can not be opened or is locked. On file systems without locks it
  // holds off nobody.
  explicit FolderLock(const std::filesystem::path& folder);
  ~FolderLock();
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;

 private:
  int descriptor_;
};

}  // namespace farskip
