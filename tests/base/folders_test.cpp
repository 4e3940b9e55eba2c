#include "farskip/base/folders.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>

#include "error_of.h"
#include "farskip/base/error.h"
#include "farskip/base/files.h"
#include "read_only_folder.h"
#include "temporary_folder.h"

namespace farskip {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class Folders : public testing::Test {
 protected:
  fs::path path(const std::string& name) const { return folder_.path() / name; }
  std::vector<std::string> names() const {
    std::vector<std::string> names;
    for (const fs::path& entry : folder_entries(folder_.path())) names.push_back(entry.filename());
    return names;
  }
  void fill(const fs::path& folder, const std::string& content) const {
    fs::create_directories(folder);
    write_file_atomically(folder / "file", content);
  }

  TemporaryFolder folder_;
};

TEST_F(Folders, StagedFolderTakesItsPlaceWhole) {
  StagedFolder staged(path("target"));
  EXPECT_THAT(staged.path().filename().string(), HasSubstr("target.partial-"));
  write_file_atomically(staged.path() / "file", "new");
  EXPECT_FALSE(fs::exists(path("target")));
  staged.put_in_place();
  EXPECT_THAT(names(), ElementsAre("target"));
  EXPECT_EQ(read_file(path("target") / "file"), "new");
}

TEST_F(Folders, AbandonedStagedFolderIsGone) {
  {
    const StagedFolder staged(path("target/"));
    EXPECT_THAT(names(), ElementsAre(HasSubstr("target.partial-")));
    fill(staged.path() / "inner", "half");
  }
  EXPECT_THAT(names(), IsEmpty());
}

TEST_F(Folders, OnlyAnEmptyFolderIsOverwritten) {
  fs::create_directory(path("empty"));
  StagedFolder(path("empty")).put_in_place();
  fill(path("full"), "old");
  EXPECT_THAT(error_of<FileError>([&] { StagedFolder(path("full")).put_in_place(); }),
              HasSubstr("not empty"));
  EXPECT_EQ(read_file(path("full") / "file"), "old");
  write_file_atomically(path("a_file"), "old");
  EXPECT_THAT(error_of<FileError>([&] { StagedFolder(path("a_file")).put_in_place(); }),
              HasSubstr("Not a directory"));
  EXPECT_THAT(names(), ElementsAre("a_file", "empty", "full"));
}

TEST_F(Folders, ReplacingExchangesAndRemovesTheOld) {
  fill(path("target"), "old");
  StagedFolder staged(path("target"));
  write_file_atomically(staged.path() / "file", "new");
  staged.replace();
  EXPECT_EQ(read_file(path("target") / "file"), "new");
  EXPECT_THAT(names(), ElementsAre("target"));
  StagedFolder none(path("missing"));
  EXPECT_THAT(error_of<FileError>([&] { none.replace(); }), HasSubstr("missing"));
}

TEST_F(Folders, WhereNoneCanBeMade) {
  EXPECT_THAT(error_of<FileError>([&] { StagedFolder staged(path("no/such/folder")); }),
              HasSubstr("No such file or directory"));
  const ReadOnlyFolder locked(folder_.path());
  EXPECT_THAT(error_of<FileError>([&] { StagedFolder staged(path("target")); }),
              HasSubstr("Permission denied"));
}

TEST_F(Folders, RemovingTakesTheWholeFolder) {
  fill(path("target") / "inner", "x");
  remove_folder_at_once(path("target"));
  EXPECT_THAT(names(), IsEmpty());
  EXPECT_THAT(error_of<FileError>([&] { remove_folder_at_once(path("target")); }),
              HasSubstr("target"));
}

TEST_F(Folders, LeftoversAreThoseOfThePrefix) {
  for (const char* name : {"step-1", "step-1.partial-ab", "step-2.removed-cd", "other.partial-ef",
                           "partial-step-", "step-3.partial"}) {
    fill(path(name), "x");
  }
  remove_leftovers(folder_.path(), "step-");
  EXPECT_THAT(names(),
              ElementsAre("other.partial-ef", "partial-step-", "step-1", "step-3.partial"));
  EXPECT_THAT(error_of<FileError>([&] { remove_leftovers(path("missing"), ""); }),
              HasSubstr("missing"));
}

TEST_F(Folders, LockIsHeldOnce) {
  std::optional<FolderLock> lock(folder_.path());
  EXPECT_THAT(error_of<FileError>([&] { FolderLock second(folder_.path()); }), HasSubstr("in use"));
  lock.reset();
  FolderLock again(folder_.path());
  EXPECT_THAT(error_of<FileError>([&] { FolderLock missing(path("missing")); }),
              HasSubstr("missing"));
}

}  // namespace
}  // namespace farskip
