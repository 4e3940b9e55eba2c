#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include <cmath>

#include "checkpoint_tools.h"
#include "farskip/base/error.h"
#include "farskip/io/weights.h"

namespace farskip {
namespace {

ModelConfig config_of(const std::string& family) { return read_model_config(fixture(family)); }

TEST(RandomWeights, DoNotDependOnRanksOrPlacement) {
  const ModelConfig config = config_of("deepseek_v3");
  const std::vector<int> one = {0}, four = {0, 1, 2, 3};
  const Weights whole =
      random_weights(config, Placement::contiguous(16, 1), one, at::kFloat, 5).front();
  const auto parts = random_weights(config, Placement::contiguous(16, 4), four, at::kFloat, 5);
  for (const auto& [name, weight] : whole) {
    if (name.find(".experts.") == std::string::npos) {
      EXPECT_TRUE(at::equal(weight, parts[3].at(name))) << name;
      EXPECT_EQ(parts[0].at(name).const_data_ptr(), parts[3].at(name).const_data_ptr());
      continue;
    }
    EXPECT_TRUE(at::equal(weight, at::cat({parts[0].at(name), parts[1].at(name), parts[2].at(name),
                                           parts[3].at(name)})))
        << name;
  }
  const auto placement =
      Placement::from_table({{3}, {0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}});
  const Weights scattered = random_weights(config, placement, 0, at::kFloat, 5);
  EXPECT_TRUE(
      at::equal(scattered.at("layer.2.experts.down")[0], whole.at("layer.2.experts.down")[3]));
}

TEST(RandomWeights, HaveShapesAndDtypesOfTheSpecs) {
  for (const char* family : {"deepseek_v2", "qwen3_moe", "olmoe", "mixtral"}) {
    const ModelConfig config = config_of(family);
    const auto placement = Placement::contiguous(config.router.experts, 3);
    const Weights weights = random_weights(config, placement, 1, at::kBFloat16, 1);
    for (const WeightSpec& spec : weight_specs(config, placement, 1, at::kBFloat16)) {
      EXPECT_EQ(weights.at(spec.name).sizes().vec(), spec.shape) << spec.name;
      EXPECT_EQ(weights.at(spec.name).scalar_type(), spec.dtype) << spec.name;
    }
  }
}

TEST(RandomWeights, AreNormalWithTheRightDeviation) {
  const ModelConfig config = config_of("olmoe");
  const Weights weights = random_weights(config, Placement::contiguous(16, 1), 0, at::kFloat, 9);
  const at::Tensor embedding = weights.at("embedding").flatten();  // 32,768 draws
  EXPECT_NEAR(embedding.mean().item<double>(), 0.0, 0.02);
  EXPECT_NEAR(embedding.std().item<double>(), 1.0, 0.02);
  EXPECT_NEAR(embedding.abs().le(1.0).to(at::kFloat).mean().item<double>(), 0.6827, 0.01);
  EXPECT_NEAR(weights.at("head").std().item<double>(), 1.0 / 8, 0.003);
  EXPECT_NEAR(weights.at("layer.1.experts.down").std().item<double>(), 1.0 / 4, 0.006);
  EXPECT_TRUE(weights.at("final_norm").eq(1).all().item<bool>());
  // Neighbours, and experts among each other, do not follow one another.
  const at::Tensor left = embedding.narrow(0, 0, 32767), right = embedding.narrow(0, 1, 32767);
  EXPECT_LT(std::abs((left * right).mean().item<double>()), 0.03);
  const at::Tensor& down = weights.at("layer.1.experts.down");
  EXPECT_LT(std::abs((down[0] * down[1]).mean().item<double>()), 0.01);
}

TEST(RandomWeights, DependOnSeedAndName) {
  const ModelConfig config = config_of("olmoe");
  const auto placement = Placement::contiguous(16, 1);
  const Weights a = random_weights(config, placement, 0, at::kFloat, 1);
  const Weights b = random_weights(config, placement, 0, at::kFloat, 2);
  EXPECT_FALSE(at::equal(a.at("head"), b.at("head")));
  EXPECT_FALSE(at::equal(a.at("layer.1.router"), a.at("layer.2.router")));
  EXPECT_TRUE(
      at::equal(a.at("head"), random_weights(config, placement, 0, at::kFloat, 1).at("head")));
}

TEST(RandomWeights, RefuseWhatSpecsRefuse) {
  const ModelConfig config = config_of("olmoe");
  EXPECT_THROW(random_weights(config, Placement::contiguous(16, 1), 1, at::kFloat, 1), ConfigError);
  EXPECT_THROW(random_weights(config, Placement::contiguous(16, 1), 0, at::kInt, 1),
               UnsupportedError);
}

TEST(InitialWeights, AreScaledByDepthWhereTheyAddToTheStream) {
  const ModelConfig config = config_of("deepseek_v3");  // 4 layers, the first dense
  const std::vector<int> one = {0};
  const auto placement = Placement::contiguous(16, 1);
  const Weights weights = initial_weights(config, placement, one, at::kFloat, 3, 0.05).front();
  const double of_outputs = 0.05 / std::sqrt(8.0);
  for (const WeightSpec& spec : weight_specs(config, placement, 0, at::kFloat)) {
    const at::Tensor& weight = weights.at(spec.name);
    if (spec.role == WeightRole::norm || spec.role == WeightRole::bias) {
      const double value = spec.role == WeightRole::norm ? 1 : 0;
      EXPECT_TRUE(weight.eq(value).all().item<bool>()) << spec.name;
      continue;
    }
    const std::string name = spec.name.substr(spec.name.rfind('.') + 1);
    const double expected = name == "down" || name == "output" ? of_outputs : 0.05;
    EXPECT_NEAR(weight.std().item<double>() / expected, 1, 0.06) << spec.name;
    EXPECT_NEAR(weight.mean().item<double>() / expected, 0, 0.1) << spec.name;
  }
}

TEST(InitialWeights, DoNotDependOnRanksOrPlacement) {
  const ModelConfig config = config_of("qwen3_moe");
  const int experts = config.router.experts;
  const std::vector<int> one = {0}, two = {0, 1};
  const Weights whole =
      initial_weights(config, Placement::contiguous(experts, 1), one, at::kFloat, 5).front();
  const auto parts = initial_weights(config, Placement::contiguous(experts, 2), two, at::kFloat, 5);
  for (const auto& [name, weight] : whole) {
    const bool of_experts = name.find(".experts.") != std::string::npos;
    const at::Tensor joined =
        of_experts ? at::cat({parts[0].at(name), parts[1].at(name)}) : parts[1].at(name);
    EXPECT_TRUE(at::equal(weight, joined)) << name;
  }
}

TEST(InitialWeights, RefuseDeviationsThatAreNone) {
  const ModelConfig config = config_of("olmoe");
  const std::vector<int> one = {0};
  for (const double deviation : {0.0, -0.02, std::nan(""), HUGE_VAL}) {
    EXPECT_THROW(
        initial_weights(config, Placement::contiguous(16, 1), one, at::kFloat, 1, deviation),
        ConfigError);
  }
}

}  // namespace
}  // namespace farskip
