#pragma once

#include <ATen/core/Tensor.h>

#include "farskip/nn/weight_gradient.h"

namespace farskip {

// The gradients of rms_norm (norm.h): y = n w with n = x r, r = 1 / sqrt(mean(x^2) + eps) of each
// row. Computed in fp32 (fp64 for fp64). x and d_y [..., H] of one dtype, weight [H].
// Throws Error if shapes or dtypes do not fit.

// By x: r (g - n mean(g n)) with g = d_y w, in x's dtype.
at::Tensor rms_norm_gradient(const at::Tensor& d_y, const at::Tensor& x, const at::Tensor& weight,
                             double eps);

// By the weight: the sum of d_y n over all rows; zero rows give zeros.
void rms_norm_weight_gradient(const WeightGradient& gradient, const at::Tensor& d_y,
                              const at::Tensor& x, double eps);

}  // namespace farskip
