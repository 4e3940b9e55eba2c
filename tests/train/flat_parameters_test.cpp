#include "farskip/train/flat_parameters.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "farskip/base/error.h"
#include "farskip/io/weights.h"

namespace farskip {
namespace {

ModelConfig config_of(const std::string& family) {
  return read_model_config(std::filesystem::path(FARSKIP_SOURCE_DIR) / "tests/fixtures" / family);
}

TEST(FlatParameters, CoverTheModelOnce) {
  for (const char* family : {"deepseek_v2", "deepseek_v3", "qwen3_moe", "olmoe", "mixtral"}) {
    const ModelConfig config = config_of(family);
    double elements = 0;
    for (const FlatParameter& parameter : flat_parameters(config)) {
      elements += static_cast<double>(parameter.elements) *
                  (parameter.of_experts ? config.router.experts : 1);
    }
    EXPECT_EQ(elements, count_parameters(config).total) << family;
  }
}

TEST(FlatParameters, EntriesOfARankFillItsWeights) {
  const ModelConfig config = config_of("deepseek_v3");
  const auto placement =
      Placement::from_table({{0, 2, 5}, {1, 3, 4, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}});
  for (int rank = 0; rank < 2; ++rank) {
    const Weights weights = random_weights(config, placement, rank, at::kFloat, 1);
    int64_t elements = 0;
    for (const auto& [name, weight] : weights) elements += weight.numel();
    const ShardList held = held_entries(flat_parameters(config), placement, rank);
    EXPECT_EQ(elements_of(held), elements);
    for (const ShardEntry& entry : held) {
      EXPECT_EQ(entry_view(weights, entry, placement.experts_of(rank)).numel(), entry.count);
    }
  }
}

TEST(FlatParameters, ViewsShareMemory) {
  const std::map<std::string, at::Tensor> tensors = {
      {"a", at::arange(6, at::kFloat).view({2, 3})},
      {"experts", at::arange(12, at::kFloat).view({3, 2, 2})}};
  const std::vector<int> experts = {1, 4, 6};
  EXPECT_TRUE(
      at::equal(entry_view(tensors, {"a", -1, 2, 3}, experts), at::arange(2, 5, at::kFloat)));
  const at::Tensor view = entry_view(tensors, {"experts", 4, 1, 2}, experts);
  EXPECT_TRUE(at::equal(view, at::arange(5, 7, at::kFloat)));
  view.fill_(-1);
  EXPECT_EQ(tensors.at("experts")[1][1][0].item<float>(), -1.0f);
  EXPECT_EQ(entry_view(tensors, {"a", -1, 6, 0}, experts).numel(), 0);
}

TEST(FlatParameters, WhatARankDoesNotHoldIsRefused) {
  const std::map<std::string, at::Tensor> tensors = {
      {"experts", at::arange(12, at::kFloat).view({3, 2, 2})}};
  const std::vector<int> experts = {1, 4, 6};
  for (const ShardEntry& entry :
       {ShardEntry{"b", -1, 0, 1}, ShardEntry{"experts", 2, 0, 1}, ShardEntry{"experts", 7, 0, 1},
        ShardEntry{"experts", 4, 2, 3}, ShardEntry{"experts", 4, -1, 1}}) {
    EXPECT_THROW(entry_view(tensors, entry, experts), ConfigError) << to_string(entry);
  }
  EXPECT_THROW(entry_view(tensors, {"experts", 1, 0, 1}, {1, 4}), ConfigError);
}

}  // namespace
}  // namespace farskip
