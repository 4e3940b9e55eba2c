#pragma once

#include <ATen/core/Tensor.h>

#include "farskip/nn/weight_gradient.h"

namespace farskip {

// The gradients of rms_norm (norm.h): y = n w with n = x r, r = 1 / sqrt(mean(x^2) + eps) of each
// row. Computed in fp32 (fp64 for fp64). x and d_y [rows, H] or [rows, heads, d] of one dtype,
// dense in the last dimension; weight [H] or [d]. Throws Error if shapes or dtypes do not fit.

// By x, into `out`, shaped as x: r (g - n mean(g n)) with g = d_y w, in x's dtype.
void rms_norm_gradient_out(const at::Tensor& out, const at::Tensor& d_y, const at::Tensor& x,
                           const at::Tensor& weight, double eps);

// By the weight: the sum of d_y n over all rows; zero rows give zeros.
void rms_norm_weight_gradient(const WeightGradient& gradient, const at::Tensor& d_y,
                              const at::Tensor& x, double eps);

}  // namespace farskip
