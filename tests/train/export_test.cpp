#include "farskip/train/export.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

#include "../base/full_disk.h"
#include "../io/checkpoint_tools.h"
#include "farskip/base/error.h"
#include "farskip/base/folders.h"
#include "farskip/model/fingerprint.h"
#include "farskip/model/stored_connectivity.h"
#include "farskip/train/flat_parameters.h"

namespace farskip {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

const char* const families[] = {"deepseek_v2",      "deepseek_v2_full", "deepseek_v3",
                                "deepseek_v3_lite", "qwen3_moe",        "olmoe",
                                "mixtral"};

std::vector<Weights> load(const fs::path& folder, const Placement& placement,
                          at::ScalarType dtype = at::kFloat) {
  const Checkpoint checkpoint(folder);
  std::vector<int> ranks(static_cast<size_t>(placement.ranks()));
  std::iota(ranks.begin(), ranks.end(), 0);
  return load_weights(checkpoint, checkpoint.config(), placement, ranks, dtype);
}

// Experts scattered over three ranks, one of which has none.
Placement scattered(int experts) {
  std::vector<std::vector<int>> table(3);
  for (int expert = 0; expert < experts; ++expert) table[expert % 3 == 1 ? 2 : 0].push_back(expert);
  return Placement::from_table(table);
}

std::string config_text(const std::string& family) {
  return read_file(fixture(family) / "config.json");
}

Json farskip_of(const ModelConfig& config) {
  return Connectivity::preset("farskip", config.layers).to_json();
}

class Export : public testing::Test {
 protected:
  fs::path target() const { return folder_.path() / "exported"; }
  std::vector<std::string> files() const {
    std::vector<std::string> names;
    for (const fs::path& entry : folder_entries(target())) names.push_back(entry.filename());
    return names;
  }
  // Exports a fixture from the weights of ranks.
  void export_fixture(const std::string& family, const ExportOptions& options) const {
    const ModelConfig config = read_model_config(fixture(family));
    const Placement placement = scattered(config.router.experts);
    const auto weights = load(fixture(family), placement, options.dtype);
    export_checkpoint(target(), config_text(family), farskip_of(config),
                      weights_of_ranks(weights, placement), options);
  }
  // Expects what load_weights reads of the export to be what it reads of the fixture.
  void expect_same_weights(const std::string& family, at::ScalarType dtype) const {
    const Placement placement = scattered(read_model_config(fixture(family)).router.experts);
    const auto before = load(fixture(family), placement, dtype);
    const auto after = load(target(), placement, dtype);
    for (size_t rank = 0; rank < before.size(); ++rank) {
      ASSERT_EQ(after[rank].size(), before[rank].size());
      for (const auto& [name, weight] : before[rank]) {
        EXPECT_TRUE(at::equal(after[rank].at(name), weight)) << family << " " << name;
      }
    }
  }

  TemporaryFolder folder_;
};

class ExportOfFamily : public Export,
                       public testing::WithParamInterface<std::tuple<const char*, at::ScalarType>> {
 protected:
  std::string family() const { return std::get<0>(GetParam()); }
  at::ScalarType dtype() const { return std::get<1>(GetParam()); }
};

TEST_P(ExportOfFamily, ComesBackAsItWas) {
  export_fixture(family(), {.dtype = dtype()});
  EXPECT_THAT(files(), ElementsAre("config.json", "model.safetensors"));
  expect_same_weights(family(), dtype());
  const ModelConfig before = read_model_config(fixture(family()));
  const ModelConfig after = read_model_config(target());
  EXPECT_EQ(fingerprint(after), fingerprint(before));
  EXPECT_EQ(after.checkpoint_dtype, dtype() == at::kFloat ? "float32" : "bfloat16");
  EXPECT_EQ(read_stored_connectivity(target(), after.layers)->name(), "farskip");
}

TEST_P(ExportOfFamily, HasTheNamesAndShapesOfTheOriginal) {
  export_fixture(family(), {.dtype = dtype()});
  const Checkpoint before(fixture(family())), after(target());
  ASSERT_EQ(after.names(), before.names());
  for (const std::string& name : before.names()) {
    EXPECT_EQ(after.info(name).shape, before.info(name).shape) << name;
  }
}

INSTANTIATE_TEST_SUITE_P(Families, ExportOfFamily,
                         testing::Combine(testing::ValuesIn(families),
                                          testing::Values(at::kFloat, at::kBFloat16)),
                         [](const auto& info) {
                           return std::string(std::get<0>(info.param)) +
                                  (std::get<1>(info.param) == at::kFloat ? "_fp32" : "_bf16");
                         });

TEST_F(Export, LargeModelsGoIntoSeveralFiles) {
  export_fixture("olmoe", {.dtype = at::kFloat, .bytes_per_file = 300'000});
  uint64_t bytes = 0;
  const Checkpoint checkpoint(target());
  for (const fs::path& entry : folder_entries(target())) {
    if (entry.extension() != ".safetensors") continue;
    EXPECT_THAT(entry.filename().string(), testing::MatchesRegex("model-0000.-of-0000.*"));
    EXPECT_LT(fs::file_size(entry), 310'000U);
  }
  for (const std::string& name : checkpoint.names()) {
    bytes += checkpoint.info(name).end - checkpoint.info(name).begin;
  }
  const Json index = read_json_file(target() / "model.safetensors.index.json");
  EXPECT_EQ(index.at("metadata").at("total_size"), bytes);
  EXPECT_EQ(index.at("weight_map").size(), checkpoint.names().size());
  expect_same_weights("olmoe", at::kFloat);
}

TEST_F(Export, TensorsLargerThanAFileStandAlone) {
  export_fixture("mixtral", {.dtype = at::kFloat, .bytes_per_file = 1});
  const Checkpoint checkpoint(target());
  EXPECT_EQ(files().size(), checkpoint.names().size() + 2);
  expect_same_weights("mixtral", at::kFloat);
}

TEST_F(Export, TiedHeadIsLeftOut) {
  const std::string family = "olmoe";
  fs::create_directory(folder_.path() / "tied");
  write_checkpoint(folder_.path() / "tied", family, fixture_tensors(family),
                   {{"tie_word_embeddings", true}});
  const auto one = Placement::contiguous(16, 1);
  const auto weights = load(folder_.path() / "tied", one);
  export_checkpoint(target(), read_file(folder_.path() / "tied/config.json"), Json::object(),
                    weights_of_ranks(weights, one), {.dtype = at::kFloat});
  EXPECT_FALSE(Checkpoint(target()).contains("lm_head.weight"));
  EXPECT_TRUE(at::equal(load(target(), one)[0].at("head"), weights[0].at("embedding")));
}

TEST_F(Export, ConfigKeepsItsFieldsAndTheirOrder) {
  write_config(folder_.path(), "deepseek_v3", fp8_config());
  std::string text = read_file(folder_.path() / "config.json");
  const ModelConfig config = read_model_config(fixture("deepseek_v3"));
  const auto one = Placement::contiguous(config.router.experts, 1);
  const auto weights = load(fixture("deepseek_v3"), one);
  text = "{\"zeta\": 1.0e-6, \"alpha\": [1, null]," + text.substr(text.find('{') + 1);
  export_checkpoint(target(), text, farskip_of(config), weights_of_ranks(weights, one));
  const std::string exported = read_file(target() / "config.json");
  EXPECT_LT(exported.find("zeta"), exported.find("alpha"));
  EXPECT_LT(exported.find("alpha"), exported.find("architectures"));
  Json expected = parse_json(text, "text"), found = read_json_file(target() / "config.json");
  EXPECT_FALSE(found.contains("quantization_config"));
  EXPECT_EQ(found.at("dtype"), "bfloat16");
  EXPECT_EQ(found.at("farskip").at("version"), 1);
  for (const char* key : {"quantization_config", "dtype", "farskip"}) {
    expected.erase(key);
    found.erase(key);
  }
  EXPECT_EQ(found, expected);
}

TEST_F(Export, CompanionsComeAlong) {
  const fs::path from = folder_.path() / "from";
  fs::create_directory(from);
  write_file_atomically(from / "tokenizer.json", "{}");
  write_file_atomically(from / "generation_config.json", "{\"a\": 1}");
  write_file_atomically(from / "model.safetensors", "of the original");
  export_fixture("olmoe", {.companions_from = from});
  EXPECT_THAT(files(), ElementsAre("config.json", "generation_config.json", "model.safetensors",
                                   "tokenizer.json"));
  EXPECT_EQ(read_file(target() / "generation_config.json"), "{\"a\": 1}");
}

// Master weights of a model as ranks of a training run keep them, cut at odd places.
void save_masters(const fs::path& run, const std::string& family, const Placement& placement,
                  int data_parallel) {
  const ModelConfig config = read_model_config(fixture(family));
  const auto one = Placement::contiguous(config.router.experts, 1);
  const Weights whole = load(fixture(family), one).front();
  const std::vector<FlatParameter> parameters = flat_parameters(config);
  const int ranks = placement.ranks() * data_parallel;
  Manifest manifest{.point = {.model_config = config_text(family),
                              .model_fingerprint = fingerprint(config),
                              .connectivity = farskip_of(config)}};
  fs::create_directory(run);
  for (int rank = 0; rank < ranks; ++rank) {
    const OptimizerShard kept = optimizer_shard(parameters, placement, data_parallel, rank);
    std::vector<StateShard> shards;
    for (const BucketPart* part : {&kept.shared, &kept.experts}) {
      for (const ShardEntry& entry : part->entries) {
        shards.push_back({.entry = entry, .master = entry_view(whole, entry, one.experts_of(0))});
      }
    }
    manifest.files.push_back(write_state_file(run / shard_file_name(rank), shards));
  }
  write_manifest(run, manifest);
}

TEST_F(Export, TrainingCheckpointsAreExportedToo) {
  for (const char* family : {"deepseek_v3", "mixtral"}) {
    const fs::path run = folder_.path() / family;
    const int experts = read_model_config(fixture(family)).router.experts;
    save_masters(run, family, scattered(experts), 3);
    const TrainingCheckpoint checkpoint(run);
    export_checkpoint(target(), checkpoint.point().model_config, checkpoint.point().connectivity,
                      weights_of_checkpoint(checkpoint), {.dtype = at::kFloat});
    expect_same_weights(family, at::kFloat);
    fs::remove_all(target());
  }
}

TEST_F(Export, NothingIsOverwritten) {
  fs::create_directory(target());
  write_file_atomically(target() / "precious", "x");
  EXPECT_THAT(message_of<FileError>([&] { export_fixture("olmoe", {}); }),
              HasSubstr("exported: something is there already"));
  EXPECT_THAT(files(), ElementsAre("precious"));
  fs::remove(target() / "precious");
  export_fixture("olmoe", {});  // an empty folder is fine
  EXPECT_EQ(files().size(), 2U);
}

TEST_F(Export, FailuresLeaveNothing) {
  const WeightSource broken = [](const WeightRows& rows) -> at::Tensor {
    if (rows.spec.name == "final_norm") throw FileError("source is gone");
    return at::empty(rows.shape(), at::kFloat);
  };
  EXPECT_THAT(
      message_of<FileError>([&] { export_checkpoint(target(), config_text("olmoe"), {}, broken); }),
      HasSubstr("source is gone"));
  {
    const FullDisk full(100'000);
    EXPECT_THROW(export_fixture("olmoe", {}), FileError);
  }
  EXPECT_THAT(folder_entries(folder_.path()), IsEmpty());
}

TEST_F(Export, WhatIsNotPossibleIsSaid) {
  EXPECT_THROW(export_fixture("olmoe", {.dtype = at::kHalf}), UnsupportedError);
  const WeightSource none = [](const WeightRows&) { return at::Tensor(); };
  EXPECT_THROW(export_checkpoint(target(), "{}", {}, none), ConfigError);
  EXPECT_THROW(export_checkpoint(target(), "no json", {}, none), FileError);
  EXPECT_THROW(export_checkpoint(target(), config_text("llama4"), {}, none), UnsupportedError);
  EXPECT_THROW(weights_of_ranks({}, Placement::contiguous(4, 2)), ConfigError);
  EXPECT_THAT(folder_entries(folder_.path()), IsEmpty());
}

}  // namespace
}  // namespace farskip
