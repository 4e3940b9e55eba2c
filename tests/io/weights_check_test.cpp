#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "checkpoint_tools.h"
#include "farskip/base/error.h"
#include "farskip/io/weights.h"

namespace farskip {
namespace {

using testing::HasSubstr;

// A good checkpoint whose tensors a test spoils before it is loaded on two ranks.
class SpoiltCheckpoint : public testing::Test {
 protected:
  explicit SpoiltCheckpoint(std::string family = "deepseek_v3")
      : tensors_(fixture_tensors(family)), family_(std::move(family)) {}

  void load(const std::vector<int>& ranks = {0, 1}, at::ScalarType dtype = at::kFloat) const {
    write_checkpoint(folder_.path(), family_, tensors_);
    const Checkpoint checkpoint(folder_.path());
    load_weights(checkpoint, checkpoint.config(),
                 Placement::contiguous(checkpoint.config().router.experts, 2), ranks, dtype);
  }
  std::string error() const {
    return message_of<FileError>([&] { load(); });
  }

  Tensors tensors_;

 private:
  std::string family_;
  TemporaryFolder folder_;
};

const std::string last_expert = "model.layers.3.mlp.experts.15.down_proj.weight";

TEST_F(SpoiltCheckpoint, IsGoodWhenNotSpoilt) { EXPECT_NO_THROW(load()); }

TEST_F(SpoiltCheckpoint, EveryMissingTensorIsNamed) {
  const std::vector<std::string> names = {"model.embed_tokens.weight",
                                          "model.norm.weight",
                                          "lm_head.weight",
                                          "model.layers.1.mlp.gate.weight",
                                          "model.layers.1.mlp.gate.e_score_correction_bias",
                                          "model.layers.0.self_attn.kv_a_layernorm.weight",
                                          "model.layers.2.mlp.shared_experts.up_proj.weight",
                                          last_expert};
  for (const std::string& name : names) {
    const at::Tensor kept = tensors_.at(name);
    tensors_.erase(name);
    EXPECT_THAT(error(), HasSubstr("expected " + name));
    tensors_[name] = kept;
  }
}

TEST_F(SpoiltCheckpoint, UnknownTensors) {
  for (const char* name :
       {"model.layers.1.self_attn.q_proj.bias", "vision.weight", "model.layers.3.mlp.experts.16.x",
        "model.layers.99999999999999999999.x", "model.layers.4", "model.layers.-1.x",
        "model.layers.1.self_attn.o_proj.weight_scale_inv"}) {
    tensors_[name] = at::ones({2, 2});
    EXPECT_THAT(error(), HasSubstr(std::string(name) + ": unknown tensor"));
    tensors_.erase(name);
  }
}

TEST_F(SpoiltCheckpoint, FurtherLayersAndRotaryTablesAreNotNeeded) {
  tensors_["model.layers.4.eh_proj.weight"] = at::ones({2, 2});
  tensors_["model.layers.4.embed_tokens.weight"] = at::ones({2, 2});
  tensors_["model.layers.0.self_attn.rotary_emb.inv_freq"] = at::ones({8});
  EXPECT_NO_THROW(load());
}

TEST_F(SpoiltCheckpoint, WrongShapes) {
  tensors_[last_expert] = at::ones({16, 64});
  EXPECT_THAT(error(), HasSubstr(last_expert + ": wrong shape (expected [64, 16], found [16, 64]"));
  tensors_[last_expert] = at::ones({1024});
  EXPECT_THAT(error(), HasSubstr("found [1024]"));
  tensors_[last_expert] = at::ones({64, 16});
  tensors_["model.norm.weight"] = at::ones({64, 1});
  EXPECT_THAT(error(), HasSubstr("model.norm.weight: wrong shape (expected [64], found [64, 1]"));
}

TEST_F(SpoiltCheckpoint, WrongDtypes) {
  tensors_[last_expert] = at::ones({64, 16}, at::kLong);
  EXPECT_THAT(error(), HasSubstr("found I64 [64, 16]"));
  tensors_[last_expert] = at::ones({64, 16}, at::kBool);
  EXPECT_THAT(error(), HasSubstr("wrong dtype"));
}

TEST_F(SpoiltCheckpoint, RanksAndDtypesThatMakeNoSense) {
  EXPECT_THROW(load({0, 0}), ConfigError);
  EXPECT_THROW(load({2}), ConfigError);
  EXPECT_THROW(load({-1}), ConfigError);
  EXPECT_THROW(load({0}, at::kLong), UnsupportedError);
  EXPECT_THROW(load({0}, at::kFloat8_e4m3fn), UnsupportedError);
  EXPECT_NO_THROW(load({}));
}

TEST(WeightSpecs, PlacementOfAnotherModel) {
  const ModelConfig config = read_model_config(fixture("olmoe"));
  EXPECT_THROW(weight_specs(config, Placement::contiguous(8, 2), 0, at::kFloat), ConfigError);
}

TEST(WeightSpecs, ModelThatIsNotExecutable) {
  const ModelConfig config = read_model_config(fixture("llama4"));
  EXPECT_THROW(weight_specs(config, Placement::contiguous(8, 1), 0, at::kFloat), UnsupportedError);
}

TEST(WeightSpecs, BytesOfAllRanksAreTheParametersOfTheModel) {
  for (const char* family : {"deepseek_v2", "deepseek_v3", "qwen3_moe", "olmoe", "mixtral"}) {
    const ModelConfig config = read_model_config(fixture(family));
    const Placement placement = Placement::contiguous(config.router.experts, 3);
    int64_t elements = 0;
    for (int rank = 0; rank < 3; ++rank) {
      for (const WeightSpec& spec : weight_specs(config, placement, rank, at::kFloat)) {
        if (rank == 0 || spec.of_experts()) elements += spec.bytes() / 4;
      }
    }
    int64_t stored = 0;
    for (const auto& [name, tensor] : fixture_tensors(family)) stored += tensor.numel();
    EXPECT_EQ(elements, stored) << family;
  }
}

class SpoiltFusedCheckpoint : public SpoiltCheckpoint {
 protected:
  SpoiltFusedCheckpoint() : SpoiltCheckpoint("olmoe") {
    for (auto it = tensors_.begin(); it != tensors_.end();) {
      it = it->first.find(".experts.") == std::string::npos ? std::next(it) : tensors_.erase(it);
    }
    for (int layer = 0; layer < 3; ++layer) {
      const std::string prefix = "model.layers." + std::to_string(layer) + ".mlp.experts.";
      tensors_[prefix + "gate_up_proj"] = at::ones({16, 32, 64});
      tensors_[prefix + "down_proj"] = at::ones({16, 64, 16});
    }
  }
};

TEST_F(SpoiltFusedCheckpoint, ShapesMustFitTogether) {
  EXPECT_NO_THROW(load());
  const std::string down = "model.layers.1.mlp.experts.down_proj";
  tensors_[down] = at::ones({16, 16, 64});
  EXPECT_THAT(error(), HasSubstr(down + ": wrong shape of fused experts"));
  tensors_[down] = at::ones({15, 64, 16});
  EXPECT_THAT(error(), HasSubstr("found [15, 64, 16]"));
  tensors_.erase(down);
  EXPECT_THAT(error(), HasSubstr("expected " + down));
  tensors_[down] = at::ones({16, 64, 16});
  tensors_["model.layers.1.mlp.experts.gate_up_proj"] = at::ones({16, 32, 63});
  EXPECT_THAT(error(), HasSubstr("gate_up_proj: wrong shape of fused experts"));
}

TEST_F(SpoiltFusedCheckpoint, BothFormsAtOnce) {
  tensors_["model.layers.1.mlp.experts.0.down_proj.weight"] = at::ones({64, 16});
  EXPECT_THAT(error(), HasSubstr("experts.0.down_proj.weight: unknown tensor"));
}

}  // namespace
}  // namespace farskip
