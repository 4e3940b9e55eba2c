#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros_like.h>

#include "farskip/nn/experts.h"
#include "farskip/nn/head.h"
#include "farskip/nn/linear.h"
#include "farskip/nn/mlp.h"
#include "farskip/nn/norm.h"
#include "farskip/nn/permutation.h"
#include "farskip/nn/router.h"
#include "fixture.h"

namespace farskip::testing {
namespace {

// The weights of one layer, brought from hub names to the shapes that nn reads.
class LayerWeights {
 public:
  LayerWeights(const Fixture& fixture, int layer)
      : fixture_(fixture),
        prefix_("model.layers." + std::to_string(layer) + "."),
        mlp_(fixture.config.family == "mixtral" ? "block_sparse_moe." : "mlp.") {}

  const at::Tensor& get(const std::string& name) const {
    return fixture_.weights.at(prefix_ + name + ".weight");
  }
  at::Tensor moe(const std::string& name) const { return get(mlp_ + name); }

  at::Tensor router_bias() const {
    const auto found = fixture_.weights.find(prefix_ + "mlp.gate.e_score_correction_bias");
    return found == fixture_.weights.end() ? at::Tensor() : found->second;
  }

  AttentionWeights attention() const {
    const AttentionConfig& config = fixture_.config.attention;
    AttentionWeights weights;
    if (config.kind == AttentionConfig::Kind::grouped_query) {
      weights.qkv =
          at::cat({get("self_attn.q_proj"), get("self_attn.k_proj"), get("self_attn.v_proj")});
      if (config.qk_norm != AttentionConfig::QkNorm::none) {
        weights.q_norm = get("self_attn.q_norm");
        weights.k_norm = get("self_attn.k_norm");
      }
      return weights;
    }
    const bool compressed = config.q_lora_rank > 0;
    weights.q_kv_a = at::cat({get(compressed ? "self_attn.q_a_proj" : "self_attn.q_proj"),
                              get("self_attn.kv_a_proj_with_mqa")});
    if (compressed) {
      weights.q_a_norm = get("self_attn.q_a_layernorm");
      weights.q_b = get("self_attn.q_b_proj");
    }
    weights.kv_a_norm = get("self_attn.kv_a_layernorm");
    weights.kv_b = get("self_attn.kv_b_proj");
    return weights;
  }

  at::Tensor expert_gate_up() const {
    const bool mixtral = fixture_.config.family == "mixtral";
    return each_expert([&](const std::string& expert) {
      return at::cat({moe(expert + (mixtral ? "w1" : "gate_proj")),
                      moe(expert + (mixtral ? "w3" : "up_proj"))});
    });
  }
  at::Tensor expert_down() const {
    const bool mixtral = fixture_.config.family == "mixtral";
    return each_expert(
        [&](const std::string& expert) { return moe(expert + (mixtral ? "w2" : "down_proj")); });
  }

  // The shared experts ("shared_experts.") or the dense MLP ("") as one SwiGLU.
  at::Tensor swiglu(const at::Tensor& x, const std::string& block) const {
    return farskip::swiglu(x, at::cat({moe(block + "gate_proj"), moe(block + "up_proj")}),
                           moe(block + "down_proj"));
  }

 private:
  template <typename Function>
  at::Tensor each_expert(Function function) const {
    std::vector<at::Tensor> experts;
    for (int expert = 0; expert < fixture_.config.router.experts; ++expert) {
      experts.push_back(function("experts." + std::to_string(expert) + "."));
    }
    return at::stack(experts);
  }

  const Fixture& fixture_;
  std::string prefix_, mlp_;
};

at::Tensor routed_experts(const ModelConfig& config, const LayerWeights& weights,
                          const at::Tensor& x, ForwardResult& result) {
  const Routing routing = route(config.router, x, weights.moe("gate"), weights.router_bias());
  result.experts.push_back(routing.experts);
  const DispatchPlan plan =
      make_plan(routing.experts, at::arange(config.router.experts, at::kLong));
  const at::Tensor outputs =
      experts(permute(x, plan.order, config.router.top_k), plan.counts.unsqueeze(0),
              weights.expert_gate_up(), weights.expert_down());
  return unpermute(outputs, plan.inverse, routing.weights);
}

}  // namespace

ForwardResult reference_forward(const Fixture& fixture, Wiring wiring, const at::Tensor& ids,
                                const std::vector<int64_t>& lengths) {
  const ModelConfig& config = fixture.config;
  const RopeTable rope = rope_cos_sin(config.rope, sequence_positions(lengths));
  ForwardResult result;
  at::Tensor full = embed(fixture.weights.at("model.embed_tokens.weight"), ids);
  at::Tensor partial = full;
  for (int layer = 0; layer < config.layer_count(); ++layer) {
    const LayerKind kind = config.layers[layer];
    const LayerWeights weights(fixture, layer);
    const at::Tensor attention_input = rms_norm(wiring == Wiring::farskip ? partial : full,
                                                weights.get("input_layernorm"), config.norm_eps);
    const AttentionInputs inputs =
        attention_prepare(config, weights.attention(), attention_input, rope);
    const at::Tensor attention = linear(attention_core(inputs, lengths, config.softmax_scale()),
                                        weights.get("self_attn.o_proj"));
    const at::Tensor mlp_input = rms_norm(wiring == Wiring::farskip ? full : full + attention,
                                          weights.get("post_attention_layernorm"), config.norm_eps);
    partial = full + attention;
    if (kind.shared) {
      partial = partial + weights.swiglu(mlp_input, kind.routed ? "shared_experts." : "");
    }
    full = partial;
    if (kind.routed) full = full + routed_experts(config, weights, mlp_input, result);
  }
  result.logits = logits(full, fixture.weights.at("model.norm.weight"), config.norm_eps,
                         fixture.weights.at("lm_head.weight"));
  return result;
}

}  // namespace farskip::testing
