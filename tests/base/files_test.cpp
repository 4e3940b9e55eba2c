#include "farskip/base/files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <fstream>

#include "error_of.h"
#include "farskip/base/error.h"
#include "temporary_folder.h"

namespace farskip {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

class Files : public testing::Test {
 protected:
  fs::path path(const std::string& name) const { return folder_.path() / name; }
  size_t entries() const {
    return static_cast<size_t>(
        std::distance(fs::directory_iterator(folder_.path()), fs::directory_iterator()));
  }

  TemporaryFolder folder_;
};

TEST_F(Files, WhatIsWrittenIsRead) {
  const std::string content("a\0b\r\n\xff", 6);
  write_file_atomically(path("x"), content);
  EXPECT_EQ(read_file(path("x")), content);
  EXPECT_EQ(entries(), 1U);
}

TEST_F(Files, WriterAppendsPortionsAndCountsThem) {
  const std::string large(3 << 20, 'x');
  write_file_atomically(path("x"), [&](OutputFile& file) {
    file.write(large);
    EXPECT_EQ(file.size(), large.size());
    file.write("end");
    file.write("");
  });
  EXPECT_EQ(read_file(path("x")), large + "end");
}

TEST_F(Files, FailingWriterLeavesTheOldFileAndNothingElse) {
  write_file_atomically(path("x"), "old");
  const auto fail = [](OutputFile& file) {
    file.write("half");
    throw std::runtime_error("stop");
  };
  EXPECT_THROW(write_file_atomically(path("x"), fail), std::runtime_error);
  EXPECT_THROW(write_file_atomically(path("new"), fail), std::runtime_error);
  EXPECT_EQ(read_file(path("x")), "old");
  EXPECT_EQ(entries(), 1U);
}

TEST_F(Files, NewFilesFollowTheUmask) {
  const mode_t before = ::umask(027);
  write_file_atomically(path("x"), "");
  ::umask(before);
  EXPECT_EQ(static_cast<int>(fs::status(path("x")).permissions()), 0640);
}

TEST_F(Files, WritingFollowsALinkAndKeepsIt) {
  write_file_atomically(path("target"), "old");
  fs::create_symlink("target", path("link"));
  write_file_atomically(path("link"), "new");
  EXPECT_TRUE(fs::is_symlink(path("link")));
  EXPECT_EQ(read_file(path("target")), "new");
}

TEST_F(Files, WritingRefusesFoldersAndDevices) {
  EXPECT_THAT(error_of<FileError>([&] { write_file_atomically(folder_.path(), "x"); }),
              HasSubstr("a folder"));
  // Renaming a file over a device would replace it.
  EXPECT_THAT(error_of<FileError>([&] { write_file_atomically("/dev/null", "x"); }),
              HasSubstr("special file"));
  EXPECT_TRUE(fs::is_character_file("/dev/null"));
  EXPECT_THAT(error_of<FileError>([&] { write_file_atomically(path("no/such/folder"), "x"); }),
              HasSubstr("No such file or directory"));
  EXPECT_THAT(error_of<FileError>([&] { write_file_atomically("", "x"); }),
              HasSubstr("names no file"));
}

TEST_F(Files, ReadingRefusesWhatIsNoRegularFile) {
  ASSERT_EQ(::mkfifo(path("pipe").c_str(), 0600), 0);
  EXPECT_THAT(error_of<FileError>([&] { read_file(path("pipe")); }), HasSubstr("special file"));
  EXPECT_THAT(error_of<FileError>([&] { read_file(folder_.path()); }), HasSubstr("a folder"));
  EXPECT_THAT(error_of<FileError>([&] { read_file(path("missing")); }), HasSubstr("missing"));
  EXPECT_THAT(error_of<FileError>([&] { MappedFile file(folder_.path()); }), HasSubstr("a folder"));
  EXPECT_THAT(error_of<FileError>([&] { MappedFile file(path("missing")); }), HasSubstr("missing"));
}

TEST_F(Files, ReadingStopsAtTheCap) {
  write_file_atomically(path("x"), "12345");
  EXPECT_EQ(read_file(path("x"), 5), "12345");
  EXPECT_THAT(error_of<FileError>([&] { read_file(path("x"), 4); }), HasSubstr("at most 4 bytes"));
  // Says that it is empty, and is not.
  EXPECT_FALSE(read_file("/proc/self/status").empty());
  EXPECT_THAT(error_of<FileError>([&] { read_file("/proc/self/status", 10); }),
              HasSubstr("too large"));
}

TEST_F(Files, MappedFileShowsTheBytesAndMoves) {
  write_file_atomically(path("x"), "hello");
  MappedFile file(path("x"));
  const std::byte* const data = file.bytes().data();
  MappedFile moved = std::move(file);
  ASSERT_EQ(moved.size(), 5U);
  EXPECT_EQ(moved.bytes().data(), data);
  EXPECT_EQ(std::memcmp(moved.bytes().data(), "hello", 5), 0);
  write_file_atomically(path("empty"), "");
  MappedFile empty(path("empty"));
  EXPECT_TRUE(empty.bytes().empty());
  empty = std::move(moved);
  EXPECT_EQ(empty.size(), 5U);
  EXPECT_EQ(empty.path(), path("x"));
}

TEST_F(Files, MappedFileOutlivesItsReplacement) {
  write_file_atomically(path("x"), "first");
  const MappedFile file(path("x"));
  write_file_atomically(path("x"), "2");
  EXPECT_EQ(std::memcmp(file.bytes().data(), "first", 5), 0);
}

}  // namespace
}  // namespace farskip
