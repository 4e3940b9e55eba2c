#pragma once

#include <ATen/core/Tensor.h>

#include "farskip/cuda/router_rule.h"

// Who goes where, on a GPU: the router's choice and the dispatch plan, with the meaning of
// farskip/nn/router.h and permutation.h. Kernels go to the calling thread's current stream of the
// tensors' device; the host does not wait. All tensors are contiguous and on one device. Throws
// Error if shapes, dtypes or devices do not fit, UnsupportedError for more than 512 experts, 32
// choices or 32 groups, for 2^31 slots, and in builds without CUDA.
namespace farskip::cuda {

// Where choices are written: ids int64 [T, k], ascending in each row, and weights fp32 [T, k].
struct RoutingOut {
  at::Tensor experts, weights;
};

// Where a plan is written: int64 [T * k], [T * k] and [experts], as DispatchPlan has them.
struct PlanOut {
  at::Tensor order, inverse, counts;
};

// x weight^T: x [T, H], weight [experts, H] of one dtype, fp32 or bf16. With `fp32` the result is
// fp32: bf16 factors are multiplied exactly and summed in fp32. Otherwise it has x's dtype. The
// library's product, where a row's bits may depend on how many rows there are.
at::Tensor router_logits(const at::Tensor& x, const at::Tensor& weight, bool fp32);

// Chooses and weighs experts by logits [T, experts], fp32 or bf16 (as the model's dtype left them);
// `correction_bias` fp32 [experts] or undefined. Each token is computed alone. The lower id wins a
// tie.
void choose_experts_out(const RoutingOut& out, const RouterRule& rule, const at::Tensor& logits,
                        const at::Tensor& correction_bias);

// The plan of `experts` int64 [T, k] under `position_of_expert` int64 [experts], a bijection. Ids
// are not checked.
void make_plan_out(const PlanOut& out, const at::Tensor& experts,
                   const at::Tensor& position_of_expert);

// Both in one kernel.
void choose_and_plan_out(const RoutingOut& routing, const PlanOut& plan, const RouterRule& rule,
                         const at::Tensor& logits, const at::Tensor& correction_bias,
                         const at::Tensor& position_of_expert);

}  // namespace farskip::cuda
