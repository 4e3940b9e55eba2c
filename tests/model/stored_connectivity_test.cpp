#include "farskip/model/stored_connectivity.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "../base/temporary_folder.h"
#include "farskip/base/error.h"
#include "farskip/base/files.h"
#include "farskip/base/json.h"
#include "farskip/model/config.h"
#include "farskip/model/fingerprint.h"

namespace farskip {
namespace {

using testing::HasSubstr;

class StoredConnectivity : public testing::Test {
 protected:
  std::filesystem::path path() const { return folder_.path() / "config.json"; }
  void write_entry(const Json& entry) const {
    Json config = original_;
    config["farskip"] = entry;
    write_json_file(path(), config);
  }
  std::string error_of(const Json& entry) const {
    write_entry(entry);
    try {
      read_stored_connectivity(path(), model_.layers);
    } catch (const ConfigError& error) {
      return error.what();
    }
    return "no ConfigError";
  }

  TemporaryFolder folder_;
  std::filesystem::path fixture_ =
      std::filesystem::path(FARSKIP_SOURCE_DIR) / "tests/fixtures/deepseek_v3/config.json";
  Json original_ = read_json_file(fixture_);
  ModelConfig model_ = read_model_config(fixture_);
};

TEST_F(StoredConnectivity, ComesBackFromFileOrFolder) {
  const Connectivity farskip = Connectivity::preset("last-2:fresh-shared", model_.layers);
  write_entry(stored_connectivity_entry(farskip.to_json()));
  for (const auto& place : {path(), folder_.path()}) {
    const auto stored = read_stored_connectivity(place, model_.layers);
    ASSERT_TRUE(stored);
    EXPECT_EQ(*stored, farskip);
    EXPECT_EQ(stored->name(), farskip.name());
  }
}

TEST_F(StoredConnectivity, ChangesNothingOfTheModel) {
  write_entry(stored_connectivity_entry(Connectivity::preset("farskip", model_.layers).to_json()));
  EXPECT_EQ(fingerprint(read_model_config(path())), fingerprint(model_));
}

TEST_F(StoredConnectivity, MayBeAbsent) {
  EXPECT_EQ(read_stored_connectivity(fixture_, model_.layers), std::nullopt);
  write_entry(nullptr);
  EXPECT_EQ(read_stored_connectivity(path(), model_.layers), std::nullopt);
  EXPECT_THROW(read_stored_connectivity(folder_.path() / "none", model_.layers), FileError);
}

TEST_F(StoredConnectivity, OtherEntriesAreRefused) {
  const Json good = Connectivity::preset("farskip", model_.layers).to_json();
  EXPECT_THAT(error_of(3), HasSubstr("config.json: farskip: not a JSON object"));
  EXPECT_THAT(error_of({{"version", 2}, {"connectivity", good}}), HasSubstr("farskip.version"));
  EXPECT_THAT(error_of({{"connectivity", good}}), HasSubstr("farskip.version"));
  EXPECT_THAT(error_of({{"version", 1}}), HasSubstr("farskip.connectivity"));
  EXPECT_THAT(error_of({{"version", 1}, {"connectivity", "farskip"}}),
              HasSubstr("farskip.connectivity"));
  Json shorter = good;
  shorter["layers"] = 3;
  shorter["missing"].erase(3);
  EXPECT_THAT(error_of({{"version", 1}, {"connectivity", shorter}}),
              HasSubstr("config.json: connectivity: layers: stores no connectivity"));
}

}  // namespace
}  // namespace farskip
