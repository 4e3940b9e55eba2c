#include "farskip/io/weights.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/stack.h>
#include <gtest/gtest.h>

#include <numeric>

#include "checkpoint_tools.h"

namespace farskip {
namespace {

std::vector<int> all_ranks(int count) {
  std::vector<int> ranks(static_cast<size_t>(count));
  std::iota(ranks.begin(), ranks.end(), 0);
  return ranks;
}

std::vector<Weights> load(const Checkpoint& checkpoint, int ranks,
                          at::ScalarType dtype = at::kFloat) {
  const auto placement = Placement::contiguous(checkpoint.config().router.experts, ranks);
  return load_weights(checkpoint, checkpoint.config(), placement, all_ranks(ranks), dtype);
}

void expect_equal(const std::vector<Weights>& a, const std::vector<Weights>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t r = 0; r < a.size(); ++r) {
    ASSERT_EQ(a[r].size(), b[r].size());
    for (const auto& [name, weight] : a[r]) {
      EXPECT_TRUE(at::equal(weight, b[r].at(name))) << name;
    }
  }
}

std::string layer_prefix(int layer) { return "model.layers." + std::to_string(layer - 1) + "."; }

// A layer's experts as the fixtures store them, stacked: [E, 2 I, H] and [E, H, I].
std::pair<at::Tensor, at::Tensor> stacked_experts(const ModelConfig& config, const Tensors& tensors,
                                                  int layer) {
  const bool mixtral = config.family == "mixtral";
  std::vector<at::Tensor> gate_up, down;
  for (int expert = 0; expert < config.router.experts; ++expert) {
    const std::string prefix = layer_prefix(layer) + (mixtral ? "block_sparse_moe" : "mlp") +
                               ".experts." + std::to_string(expert) + ".";
    const auto get = [&](const char* usual, const char* other) {
      return tensors.at(prefix + (mixtral ? other : usual) + ".weight");
    };
    gate_up.push_back(at::cat({get("gate_proj", "w1"), get("up_proj", "w3")}));
    down.push_back(get("down_proj", "w2"));
  }
  return {at::stack(gate_up), at::stack(down)};
}

class WeightsOfFixture : public testing::TestWithParam<std::tuple<const char*, int>> {
 protected:
  std::string family() const { return std::get<0>(GetParam()); }
  int ranks() const { return std::get<1>(GetParam()); }
};

TEST_P(WeightsOfFixture, RanksPartitionExpertsAndShareTheRest) {
  const Checkpoint checkpoint(fixture(family()));
  const ModelConfig& config = checkpoint.config();
  const auto placement = Placement::contiguous(config.router.experts, ranks());
  const Tensors tensors = fixture_tensors(family());
  const std::vector<Weights> weights = load(checkpoint, ranks());
  for (int rank = 0; rank < ranks(); ++rank) {
    const Weights& own = weights[static_cast<size_t>(rank)];
    const auto specs = weight_specs(config, placement, rank, at::kFloat);
    EXPECT_EQ(own.size(), specs.size());
    for (const WeightSpec& spec : specs) {
      const at::Tensor& weight = own.at(spec.name);
      EXPECT_EQ(weight.sizes().vec(), spec.shape) << spec.name;
      EXPECT_EQ(weight.scalar_type(), spec.dtype) << spec.name;
      EXPECT_EQ(static_cast<int64_t>(weight.nbytes()), spec.bytes());
      EXPECT_TRUE(weight.is_contiguous());
      const bool shared = weight.const_data_ptr() == weights[0].at(spec.name).const_data_ptr();
      EXPECT_EQ(shared, rank == 0 || !spec.of_experts()) << spec.name;
      if (!spec.of_experts()) continue;
      const auto [gate_up, down] = stacked_experts(config, tensors, spec.layer);
      const at::Tensor& all = spec.role == WeightRole::expert_down ? down : gate_up;
      const int first = placement.experts_of(rank).front();
      EXPECT_TRUE(at::equal(weight, all.narrow(0, first, weight.size(0)))) << spec.name;
    }
  }
}

TEST_P(WeightsOfFixture, EveryByteIsReadOnceOverAllRanks) {
  const Checkpoint checkpoint(fixture(family()));
  load(checkpoint, ranks());
  for (const std::string& name : checkpoint.names()) {
    const StoredTensor& tensor = checkpoint.info(name);
    EXPECT_EQ(checkpoint.bytes_read(name), tensor.end - tensor.begin) << name;
  }
}

INSTANTIATE_TEST_SUITE_P(Families, WeightsOfFixture,
                         testing::Combine(testing::Values("deepseek_v2", "deepseek_v2_full",
                                                          "deepseek_v3", "deepseek_v3_lite",
                                                          "qwen3_moe", "olmoe", "mixtral"),
                                          testing::Values(1, 2, 4)),
                         [](const auto& info) {
                           return std::string(std::get<0>(info.param)) + "_" +
                                  std::to_string(std::get<1>(info.param));
                         });

TEST(Weights, StacksHoldTheirPartsInOrder) {
  const Weights latent = load(Checkpoint(fixture("deepseek_v3")), 1).front();
  const Tensors v3 = fixture_tensors("deepseek_v3");
  const std::string attention = "model.layers.1.self_attn.";
  EXPECT_TRUE(at::equal(latent.at("layer.2.attention.q_kv_a"),
                        at::cat({v3.at(attention + "q_a_proj.weight"),
                                 v3.at(attention + "kv_a_proj_with_mqa.weight")})));
  EXPECT_TRUE(at::equal(latent.at("layer.2.router_bias"),
                        v3.at("model.layers.1.mlp.gate.e_score_correction_bias")));
  EXPECT_TRUE(at::equal(latent.at("layer.1.dense.gate_up"),
                        at::cat({v3.at("model.layers.0.mlp.gate_proj.weight"),
                                 v3.at("model.layers.0.mlp.up_proj.weight")})));
  EXPECT_TRUE(at::equal(latent.at("layer.4.shared.down"),
                        v3.at("model.layers.3.mlp.shared_experts.down_proj.weight")));

  const Weights grouped = load(Checkpoint(fixture("qwen3_moe")), 1).front();
  const Tensors qwen = fixture_tensors("qwen3_moe");
  EXPECT_TRUE(
      at::equal(grouped.at("layer.2.attention.qkv"),
                at::cat({qwen.at(attention + "q_proj.weight"), qwen.at(attention + "k_proj.weight"),
                         qwen.at(attention + "v_proj.weight")})));
  EXPECT_TRUE(at::equal(grouped.at("head"), qwen.at("lm_head.weight")));
}

TEST(Weights, OneRankOfSeveralReadsOnlyItsExperts) {
  const Checkpoint checkpoint(fixture("olmoe"));
  const auto placement =
      Placement::from_table({{0, 2, 4, 6, 8, 10, 12}, {1, 3, 5, 7, 9, 11, 13, 14, 15}});
  const int rank = 1;
  const Weights weights =
      load_weights(checkpoint, checkpoint.config(), placement, std::span(&rank, 1), at::kFloat)
          .front();
  const auto [gate_up, down] = stacked_experts(checkpoint.config(), fixture_tensors("olmoe"), 1);
  const at::Tensor& own = weights.at("layer.1.experts.gate_up");
  ASSERT_EQ(own.size(0), 9);
  for (int64_t i = 0; i < 9; ++i) {
    EXPECT_TRUE(at::equal(own[i], gate_up[placement.experts_of(1)[static_cast<size_t>(i)]]));
  }
  EXPECT_EQ(checkpoint.bytes_read("model.layers.0.mlp.experts.2.up_proj.weight"), 0u);
  EXPECT_GT(checkpoint.bytes_read("model.layers.0.mlp.experts.3.up_proj.weight"), 0u);
}

// As in transformers: the router's weight has the model's dtype, also where its logits are fp32.
TEST(Weights, OnlyTheRouterBiasStaysInFp32) {
  const Weights v3 = load(Checkpoint(fixture("deepseek_v3")), 1, at::kBFloat16).front();
  EXPECT_EQ(v3.at("layer.2.router").scalar_type(), at::kBFloat16);
  EXPECT_EQ(v3.at("layer.2.router_bias").scalar_type(), at::kFloat);
  EXPECT_EQ(v3.at("layer.2.experts.down").scalar_type(), at::kBFloat16);
}

// The fixture with one tensor for all experts of a layer, as transformers 5 may write it.
Tensors fuse(const std::string& family, bool transposed) {
  const ModelConfig config = read_model_config(fixture(family));
  const Tensors tensors = fixture_tensors(family);
  Tensors fused;
  for (const auto& [name, tensor] : tensors) {
    if (name.find(".experts.") == std::string::npos) fused[name] = tensor;
  }
  for (int layer = 1; layer <= config.layer_count(); ++layer) {
    if (config.layers[static_cast<size_t>(layer - 1)].dense()) continue;
    auto [gate_up, down] = stacked_experts(config, tensors, layer);
    const std::string experts =
        layer_prefix(layer) + (family == "mixtral" ? "block_sparse_moe" : "mlp") + ".experts.";
    fused[experts + "gate_up_proj"] = transposed ? gate_up.transpose(1, 2) : gate_up;
    fused[experts + "down_proj"] = transposed ? down.transpose(1, 2) : down;
  }
  return fused;
}

TEST(Weights, FusedExpertsEqualSeparateOnesInBothOrders) {
  for (const char* family : {"deepseek_v2", "qwen3_moe", "mixtral"}) {
    for (const bool transposed : {false, true}) {
      const TemporaryFolder folder;
      write_checkpoint(folder.path(), family, fuse(family, transposed));
      const Checkpoint fused(folder.path());
      expect_equal(load(fused, 2), load(Checkpoint(fixture(family)), 2));
      for (const std::string& name : fused.names()) {
        const StoredTensor& tensor = fused.info(name);
        EXPECT_EQ(fused.bytes_read(name), tensor.end - tensor.begin) << name;
      }
    }
  }
}

TEST(Weights, MixtralMayCallItsBlockMlp) {
  const TemporaryFolder folder;
  Tensors renamed;
  const std::string hub_name = "block_sparse_moe";
  for (const auto& [name, tensor] : fuse("mixtral", false)) {
    std::string own_name = name;
    const size_t at = name.find(hub_name);
    if (at != std::string::npos) own_name.replace(at, hub_name.size(), "mlp");
    renamed[own_name] = tensor;
  }
  write_checkpoint(folder.path(), "mixtral", renamed);
  expect_equal(load(Checkpoint(folder.path()), 2), load(Checkpoint(fixture("mixtral")), 2));
}

TEST(Weights, ShardsEqualOneFile) {
  const TemporaryFolder folder;
  write_config(folder.path(), "deepseek_v2");
  std::vector<Tensors> shards(3);
  Json map;
  size_t count = 0;
  for (const auto& [name, tensor] : fixture_tensors("deepseek_v2")) {
    const size_t shard = count++ % shards.size();
    shards[shard][name] = tensor;
    map[name] = std::to_string(shard) + ".safetensors";
  }
  for (size_t i = 0; i < shards.size(); ++i) {
    write_tensors(folder.path() / (std::to_string(i) + ".safetensors"), shards[i]);
  }
  write_json_file(folder.path() / "model.safetensors.index.json", {{"weight_map", map}});
  expect_equal(load(Checkpoint(folder.path()), 2), load(Checkpoint(fixture("deepseek_v2")), 2));
}

TEST(Weights, Fp8ExpertsAndStacksAreDequantised) {
  const TemporaryFolder folder;
  Tensors quantised, rounded;
  for (const auto& [name, tensor] : fixture_tensors("deepseek_v3")) {
    rounded[name] = quantised[name] = tensor;
    if (name.find("_proj") == std::string::npos) continue;
    const at::Tensor eight_bits = (tensor * 64).to(at::kFloat8_e4m3fn);
    quantised[name] = eight_bits;
    quantised[name + "_scale_inv"] = at::full(
        {(tensor.size(0) + 127) / 128, (tensor.size(1) + 127) / 128}, 1.0 / 64, at::kFloat);
    rounded[name] = eight_bits.to(at::kFloat) / 64;
  }
  const TemporaryFolder plain;
  write_checkpoint(folder.path(), "deepseek_v3", quantised, fp8_config());
  write_checkpoint(plain.path(), "deepseek_v3", rounded);
  expect_equal(load(Checkpoint(folder.path()), 2), load(Checkpoint(plain.path()), 2));
}

TEST(Weights, TiedHeadIsTheEmbedding) {
  const TemporaryFolder folder;
  Tensors tensors = fixture_tensors("olmoe");
  write_checkpoint(folder.path(), "olmoe", tensors, {{"tie_word_embeddings", true}});
  EXPECT_EQ(load(Checkpoint(folder.path()), 1)[0].size(),
            load(Checkpoint(fixture("olmoe")), 1)[0].size());
  tensors.erase("lm_head.weight");
  write_checkpoint(folder.path(), "olmoe", tensors, {{"tie_word_embeddings", true}});
  const Weights weights = load(Checkpoint(folder.path()), 1).front();
  EXPECT_TRUE(weights.at("head").is_same(weights.at("embedding")));
}

TEST(Weights, FewerLayersThanTheCheckpointHas) {
  const Checkpoint checkpoint(fixture("deepseek_v3"));
  const ModelConfig cut = cut_layers(checkpoint.config(), 2);
  const auto ranks = all_ranks(2);
  const auto weights =
      load_weights(checkpoint, cut, Placement::contiguous(16, 2), ranks, at::kFloat);
  EXPECT_EQ(weights[0].count("layer.2.router"), 1u);
  EXPECT_EQ(weights[0].count("layer.3.router"), 0u);
}

}  // namespace
}  // namespace farskip
