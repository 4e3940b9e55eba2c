#include "farskip/train/manifest.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "../base/temporary_folder.h"
#include "farskip/base/error.h"
#include "farskip/base/files.h"

namespace farskip {
namespace {

using testing::HasSubstr;

Manifest example() {
  return {.point = {.step = 1000,
                    .tokens = int64_t{1} << 60,
                    .model_config = "{\"hidden_size\": 64}\n",
                    .model_fingerprint = std::numeric_limits<uint64_t>::max(),
                    .connectivity = {{"name", "farskip"}},
                    .data_seed = 0xFEDCBA9876543210,
                    .data_position = 77,
                    .settings = {{"beta1", 0.9}}},
          .files = {{3, 0xFFFFFFFFFFFFFFFF}, {0, 1}}};
}

// A folder with a good manifest and files of the stated sizes, for tests to spoil.
class ManifestFile : public testing::Test {
 protected:
  ManifestFile() {
    write_file_atomically(folder_.path() / shard_file_name(0), "abc");
    write_file_atomically(folder_.path() / shard_file_name(1), "");
    write_manifest(folder_.path(), example());
  }

  std::filesystem::path path() const { return folder_.path() / "manifest.json"; }
  Json json() const { return read_json_file(path()); }
  template <typename Expected>
  std::string error_of(const Json& json) const {
    write_json_file(path(), json);
    return error<Expected>();
  }
  template <typename Expected>
  std::string error() const {
    try {
      read_manifest(folder_.path());
    } catch (const Expected& error) {
      return error.what();
    } catch (const std::exception& error) {
      return std::string("another error: ") + error.what();
    }
    return "no error";
  }

  TemporaryFolder folder_;
};

TEST_F(ManifestFile, ComesBackAsItWas) {
  const Manifest read = read_manifest(folder_.path());
  const TrainingPoint point = read.point, expected = example().point;
  EXPECT_EQ(point.step, expected.step);
  EXPECT_EQ(point.tokens, expected.tokens);
  EXPECT_EQ(point.model_config, expected.model_config);
  EXPECT_EQ(point.model_fingerprint, expected.model_fingerprint);
  EXPECT_EQ(point.connectivity, expected.connectivity);
  EXPECT_EQ(point.data_seed, expected.data_seed);
  EXPECT_EQ(point.data_position, expected.data_position);
  EXPECT_EQ(point.settings, expected.settings);
  EXPECT_EQ(read.files, example().files);
}

TEST_F(ManifestFile, NamesOfShards) {
  EXPECT_EQ(shard_file_name(3), "rank-00003.safetensors");
  EXPECT_EQ(shard_file_name(123456), "rank-123456.safetensors");
}

TEST_F(ManifestFile, OtherFiles) {
  std::filesystem::remove(path());
  EXPECT_THAT(error<FileError>(), HasSubstr("manifest.json"));
  for (const char* text : {"", "{", "[]", "3", "null", "{}", R"({"format": 3})"}) {
    write_file_atomically(path(), text);
    EXPECT_THAT(error<FileError>(), HasSubstr("manifest.json")) << text;
  }
  write_file_atomically(path(), R"({"format": "farskip-connectivity", "version": 1})");
  EXPECT_THAT(error<FileError>(), HasSubstr("not a training checkpoint"));
}

TEST_F(ManifestFile, OtherVersions) {
  Json json = this->json();
  for (const Json& version : {Json(2), Json(0), Json("1"), Json()}) {
    json["version"] = version;
    EXPECT_THAT(error_of<FileError>(json), HasSubstr("another format version (expected 1, found"));
  }
  json.erase("version");
  EXPECT_THAT(error_of<FileError>(json), HasSubstr("found none"));
}

TEST_F(ManifestFile, EveryFieldIsNeeded) {
  const Json whole = json();
  for (const char* field : {"/step", "/tokens", "/model", "/model/config", "/model/fingerprint",
                            "/data", "/data/seed", "/data/position", "/ranks", "/files",
                            "/files/0/name", "/files/1/bytes", "/files/0/checksum"}) {
    const Json::json_pointer pointer(field);
    for (const Json& wrong : {Json(), Json(-1), Json("x"), Json(true), Json(0.5)}) {
      Json json = whole;
      json[pointer] = wrong;
      if (std::string(field) == "/model/config" && wrong.is_string()) continue;
      EXPECT_THAT(error_of<ConfigError>(json), HasSubstr("manifest.json: ")) << field << wrong;
    }
    Json json = whole;
    json[pointer.parent_pointer()].erase(pointer.back());
    if (json[pointer.parent_pointer()].is_array()) continue;
    EXPECT_THAT(error_of<ConfigError>(json), HasSubstr(pointer.back())) << field;
  }
}

TEST_F(ManifestFile, FilesAreOnePerRank) {
  Json json = this->json();
  json["ranks"] = 3;
  EXPECT_THAT(error_of<ConfigError>(json), HasSubstr("expected 3, one a rank"));
  json["ranks"] = 2;
  json["files"][1]["name"] = "../rank-00001.safetensors";
  EXPECT_THAT(error_of<ConfigError>(json), HasSubstr("files[1].name: wrong file"));
}

TEST_F(ManifestFile, ShardsThatAreGoneOrCut) {
  write_file_atomically(folder_.path() / shard_file_name(0), "ab");
  EXPECT_THAT(error<FileError>(), HasSubstr("rank-00000.safetensors: shard has another size "
                                            "(expected 3 bytes, found 2)"));
  std::filesystem::remove(folder_.path() / shard_file_name(0));
  EXPECT_THAT(error<FileError>(), HasSubstr("rank-00000.safetensors: shard can not be read"));
  std::filesystem::create_directory(folder_.path() / shard_file_name(0));
  EXPECT_THAT(error<FileError>(), HasSubstr("rank-00000.safetensors: shard can not be read"));
}

}  // namespace
}  // namespace farskip
