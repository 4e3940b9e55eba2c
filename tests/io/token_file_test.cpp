#include "farskip/io/token_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "../base/temporary_folder.h"
#include "farskip/base/error.h"

namespace farskip {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

using Ids = std::vector<int32_t>;

class TokenFiles : public testing::Test {
 protected:
  fs::path path() const { return folder_.path() / "a.tokens"; }
  void write(const std::vector<Ids>& documents, TokenSource source = {.vocabulary = 100}) const {
    write_token_file(path(), source, [&](TokenSink& sink) {
      for (const Ids& ids : documents) sink.add_document(ids, 10);
    });
  }
  std::vector<int64_t> all(const TokenFile& file) const {
    std::vector<int64_t> ids(file.size());
    file.read(0, ids);
    return ids;
  }
  // What opening, or verifying, says of a file with these bytes.
  std::string error_of(const std::string& content, bool verify = false) const {
    std::ofstream(path(), std::ios::binary) << content;
    try {
      const TokenFile file(path());
      if (verify) file.verify();
    } catch (const FileError& error) {
      EXPECT_THAT(error.what(), HasSubstr("a.tokens"));
      return error.what();
    }
    return "accepted";
  }

  TemporaryFolder folder_;
};

TEST_F(TokenFiles, WhatIsWrittenIsRead) {
  write({{1, 2, 3}, {}, {99}},
        {.vocabulary = 100, .tokenizer_fingerprint = 77, .end_of_document = 0});
  const TokenFile file(path());
  EXPECT_THAT(all(file), ElementsAre(1, 2, 3, 0, 0, 99, 0));
  EXPECT_THAT(file.document_starts(), ElementsAre(0, 4, 5));
  EXPECT_EQ(file.source().vocabulary, 100);
  EXPECT_EQ(file.source().tokenizer_fingerprint, 77u);
  EXPECT_EQ(file.source().end_of_document, 0);
  EXPECT_EQ(file.counts().documents, 3u);
  EXPECT_EQ(file.counts().text_bytes, 30u);
  EXPECT_EQ(file.bytes_per_id(), 2u);
  file.verify();
}

TEST_F(TokenFiles, AnyNumberOfIdsFits) {
  for (int count : {0, 1, 2, 3, 4, 5, 524287, 524288, 524289, 700001}) {
    Ids ids;
    for (int i = 0; i < count; ++i) ids.push_back(i % 100);
    write({ids});
    const TokenFile file(path());
    file.verify();
    EXPECT_EQ(file.size(), static_cast<uint64_t>(count));
    EXPECT_FALSE(file.source().end_of_document);
    const auto read = all(file);
    EXPECT_TRUE(std::equal(ids.begin(), ids.end(), read.begin(), read.end()));
  }
}

TEST_F(TokenFiles, LargeVocabulariesTakeFourBytes) {
  write({{65535, 0}}, {.vocabulary = 65536});
  EXPECT_EQ(TokenFile(path()).bytes_per_id(), 2u);
  EXPECT_THAT(all(TokenFile(path())), ElementsAre(65535, 0));
  write({{65536, 70000, 1}}, {.vocabulary = 70001});
  EXPECT_EQ(TokenFile(path()).bytes_per_id(), 4u);
  EXPECT_THAT(all(TokenFile(path())), ElementsAre(65536, 70000, 1));
}

TEST_F(TokenFiles, NoDocumentsAreAFileToo) {
  write({});
  const TokenFile file(path());
  file.verify();
  EXPECT_EQ(file.size(), 0u);
  EXPECT_THAT(file.document_starts(), IsEmpty());
}

TEST_F(TokenFiles, WindowsAreReadFromAnywhere) {
  write({{10, 11, 12, 13, 14}});
  const TokenFile file(path());
  std::vector<int64_t> window(2);
  file.read(3, window);
  EXPECT_THAT(window, ElementsAre(13, 14));
  EXPECT_THROW(file.read(4, window), Error);
  EXPECT_THROW(file.read(~uint64_t{0}, window), Error);
  file.read(5, std::span<int64_t>());
}

TEST_F(TokenFiles, WrongIdsLeaveNoFile) {
  EXPECT_THROW(write({{1, 100}}), ConfigError);
  EXPECT_THROW(write({{-1}}), ConfigError);
  EXPECT_THROW(write({}, {.vocabulary = 0}), ConfigError);
  EXPECT_THROW(write({}, {.vocabulary = int64_t{1} << 31}), ConfigError);
  EXPECT_THROW(write({}, {.vocabulary = 100, .end_of_document = 100}), ConfigError);
  EXPECT_TRUE(fs::is_empty(folder_.path()));
}

TEST_F(TokenFiles, EveryTruncationIsSeen) {
  write({{1, 2, 3, 4, 5}, {6}});
  const std::string content = read_file(path());
  for (size_t size = 0; size < content.size(); ++size) {
    EXPECT_NE(error_of(content.substr(0, size)), "accepted") << size;
  }
  EXPECT_NE(error_of(content + std::string(8, '\0')), "accepted");
  EXPECT_NE(error_of(content + content), "accepted");
}

TEST_F(TokenFiles, EveryChangedByteIsSeen) {
  write({{1, 2, 3, 4, 5}, {6}});
  const std::string content = read_file(path());
  for (size_t i = 0; i < content.size(); ++i) {
    std::string changed = content;
    changed[i] = static_cast<char>(changed[i] ^ 1);
    const bool in_contents = i >= 64 && i < content.size() - 48;
    EXPECT_EQ(error_of(changed) == "accepted", in_contents) << "byte " << i;
    EXPECT_NE(error_of(changed, true), "accepted") << "byte " << i;
  }
}

TEST_F(TokenFiles, OtherFilesAreNamed) {
  EXPECT_THROW(TokenFile{path()}, FileError);
  EXPECT_THAT(error_of(""), HasSubstr("found 0"));
  EXPECT_THAT(error_of(std::string(1000, 'x')), HasSubstr("farskip tokenize"));
  write({{1}});
  std::string newer = read_file(path());
  newer[16] = 2;
  EXPECT_THAT(error_of(newer), HasSubstr("another version (expected 1, found 2)"));
}

TEST_F(TokenFiles, IdsOutsideTheVocabularyAreNotGivenAway) {
  write({{1, 2, 3}});
  std::string content = read_file(path());
  content[64] = 120;
  write_file_atomically(path(), content);
  const TokenFile file(path());
  std::vector<int64_t> ids(2);
  file.read(1, ids);
  EXPECT_THROW(file.read(0, ids), FileError);
}

}  // namespace
}  // namespace farskip
