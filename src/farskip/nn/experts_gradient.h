#pragma once

#include <ATen/core/Tensor.h>

#include "farskip/nn/mlp_gradient.h"
#include "farskip/nn/weight_gradient.h"

namespace farskip {

// The gradient of experts (experts.h) by its rows, and what its weights' gradients follow from.
// d_out [N, H] lies by source rank, as rows do; products [N, 2I] by expert, as experts_saving kept
// them. The result's rows lie by source rank, its deltas and activated by expert. counts
// int64 [ranks, E], gate_up [E, 2I, H], down [E, H, I]. Throws Error if shapes do not fit.
MlpGradient experts_gradient(const at::Tensor& d_out, const at::Tensor& products,
                             const at::Tensor& counts, const at::Tensor& gate_up,
                             const at::Tensor& down);

// The gradients by gate_up and down. rows and d_out [N, H] lie by source rank, deltas and activated
// by expert. Experts without rows contribute zeros.
void experts_weight_gradient(const WeightGradient& gate_up, const WeightGradient& down,
                             const at::Tensor& rows, const at::Tensor& deltas,
                             const at::Tensor& activated, const at::Tensor& d_out,
                             const at::Tensor& counts);

}  // namespace farskip
