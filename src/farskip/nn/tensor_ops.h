#pragma once

#include <ATen/core/Tensor.h>

#include "farskip/model/config.h"
#include "farskip/nn/experts.h"
#include "farskip/nn/permutation.h"
#include "farskip/nn/rank_plan.h"
#include "farskip/nn/rope.h"
#include "farskip/nn/router.h"

// The functions of nn that have a hand-written CPU loop, once more in ATen operators alone: what
// runs on other devices, and what tests compare the loops with. Arguments are as in the public
// functions of the same name and have been checked by them.
namespace farskip::tensor_ops {

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps);

void apply_rope_(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin,
                 bool interleaved);

Routing choose_experts(const RouterConfig& config, const at::Tensor& logits,
                       const at::Tensor& correction_bias);

DispatchPlan make_plan(const at::Tensor& experts, const at::Tensor& position_of_expert);

// table[ids], in the shape of ids: `table` [n].
at::Tensor look_up(const at::Tensor& table, const at::Tensor& ids);

RankPlan make_rank_plan(const at::Tensor& experts, const ExpertHomes& homes, int64_t ranks,
                        int64_t chunks);

// cos and sin of positions [T], on their device: radians and magnitude as rope_frequencies gives.
RopeTable rope_table(const RopeFrequencies& frequencies, const at::Tensor& positions);

// counts int64 [ranks, E] on the rows' device; weights of just these E experts. Grouped products of
// all rows of an expert at once; on a GPU with bfloat16 the host never waits, and rows behind those
// that are counted stay undefined.
ExpertsOutput experts(const at::Tensor& rows, const at::Tensor& counts, const at::Tensor& gate_up,
                      const at::Tensor& down);
// The first of these products alone, by expert.
at::Tensor experts_products(const at::Tensor& rows, const at::Tensor& counts,
                            const at::Tensor& gate_up);

// A tensor of host memory on `device`: queued on the current stream through pinned memory, so that
// the host does not wait for the device. One that is there already stays as it is.
at::Tensor to_device(const at::Tensor& host, at::Device device);

void permute_by_inverse_out(const at::Tensor& out, const at::Tensor& x, const at::Tensor& inverse,
                            int64_t top_k, int64_t first_row);

at::Tensor unpermute(const at::Tensor& rows, const at::Tensor& inverse, const at::Tensor& weights);

// As quantize_out and dequantize_out of quantize.h; rows of any width.
void quantize_out(const at::Tensor& values, const at::Tensor& scales, const at::Tensor& x);
void dequantize_out(const at::Tensor& out, const at::Tensor& values, const at::Tensor& scales);

}  // namespace farskip::tensor_ops
