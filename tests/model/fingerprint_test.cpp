#include "farskip/model/fingerprint.h"

#include <gtest/gtest.h>

#include <set>

#include "farskip/model/builtin.h"

namespace farskip {
namespace {

TEST(Fingerprint, DiffersBetweenModelsAndNotBetweenNames) {
  const ModelConfig model = load_model("deepseek-v2-lite");
  ModelConfig same = model;
  same.name = "renamed";
  same.checkpoint_dtype = "float32";
  EXPECT_EQ(fingerprint(same), fingerprint(model));

  std::set<uint64_t> seen = {fingerprint(model)};
  const auto expect_new = [&](const auto& change) {
    ModelConfig other = model;
    change(other);
    EXPECT_TRUE(seen.insert(fingerprint(other)).second);
  };
  expect_new([](ModelConfig& m) { m.norm_eps *= 2; });
  expect_new([](ModelConfig& m) { m.rope.theta += 1; });
  expect_new([](ModelConfig& m) { m.attention.window.push_back(0); });
  expect_new([](ModelConfig& m) { m.router.scale += 1; });
  expect_new([](ModelConfig& m) { m.mlp.expert_width += 1; });
  expect_new([](ModelConfig& m) { m.layers.pop_back(); });
  expect_new([](ModelConfig& m) { m.layers.back().shared = !m.layers.back().shared; });
}

}  // namespace
}  // namespace farskip
