#pragma once

#include <ATen/core/Tensor.h>

namespace farskip {

// Root-mean-square norm over the last dimension of x [rows, H] or [rows, heads, d]:
// x / sqrt(mean(x^2) + eps) in fp32, rounded to x's dtype, and then times `weight` in that dtype
// (the order that Hugging Face models use; it shows in bf16). Each row is computed alone: its bits
// do not depend on the rows around it. The last dimension of x must be dense; `weight` has its
// size and x's dtype. Throws Error otherwise.
at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps);

// As rms_norm, into `out`, shaped and typed like x, dense in its last dimension. `out` may be x
// itself; other overlaps are not allowed.
void rms_norm_out(const at::Tensor& out, const at::Tensor& x, const at::Tensor& weight, double eps);

}  // namespace farskip
