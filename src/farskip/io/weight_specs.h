#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "farskip/model/config.h"
#include "farskip/model/placement.h"

namespace farskip {

enum class WeightRole { embedding, matrix, norm, bias, expert_gate_up, expert_down };

// One weight of one rank, by its canonical name: what it is called and shaped in this program,
// whatever the checkpoint calls it. Matrices are [out, in] and act as y = x W^T. With H hidden,
// V vocabulary, h heads, g key-value heads, d head width, I expert width, S shared width, D dense
// width, E experts, e experts of the rank, and L the layer counted from 1:
//
//   embedding [V, H]   final_norm [H]   head [V, H]  (no spec of its own when tied to embedding)
//   layer.L.attention_norm [H]          layer.L.mlp_norm [H]
//   layer.L.attention.qkv [(h + 2 g) d, H]: q, k, v
//   layer.L.attention.q_norm, .k_norm [d], or [h d] and [g d] when over all heads
//   layer.L.attention.q_kv_a [q_lora or h (nope + rope), then kv_lora + rope; H]    (latent)
//   layer.L.attention.q_a_norm [q_lora]   layer.L.attention.q_b [h (nope + rope), q_lora]
//   layer.L.attention.kv_a_norm [kv_lora] layer.L.attention.kv_b [h (nope + v), kv_lora]
//   layer.L.attention.output [H, h v]
//   layer.L.router [E, H]               layer.L.router_bias [E] fp32
//   layer.L.experts.gate_up [e, 2 I, H] layer.L.experts.down [e, H, I]
//   layer.L.shared.gate_up [2 S, H]     layer.L.shared.down [H, S]
//   layer.L.dense.gate_up [2 D, H]      layer.L.dense.down [H, D]
struct WeightSpec {
  std::string name;
  std::vector<int64_t> shape;
  at::ScalarType dtype = at::kFloat;
  WeightRole role = WeightRole::matrix;
  int layer = 0;  // 0: not of a layer
  // Rows of the checkpoint's tensors that stand in it one under the other (of each expert); one
  // entry for a tensor taken as it is.
  std::vector<int64_t> parts;

  int64_t bytes() const;
  // Differs from rank to rank; every rank holds the same of all others.
  bool of_experts() const {
    return role == WeightRole::expert_gate_up || role == WeightRole::expert_down;
  }
};

// "layer.3.router" for (3, "router").
std::string layer_weight_name(int layer, const std::string& weight);

// The weights of one rank, in the order of the forward pass. `dtype` is that of all but
// router_bias and, where config.router.fp32, router, which are fp32. Throws UnsupportedError if the
// model is not executable or the dtype not one to compute in, ConfigError for a rank outside the
// placement or a placement of another number of experts.
std::vector<WeightSpec> weight_specs(const ModelConfig& config, const Placement& placement,
                                     int rank, at::ScalarType dtype);

}  // namespace farskip
