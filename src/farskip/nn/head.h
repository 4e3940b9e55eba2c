#pragma once

#include <ATen/core/Tensor.h>

namespace farskip {

// Rows of `weight` [V, H] for the tokens `ids` (int64 [T], CPU or weight's device): [T, H].
// Throws Error if an id on the CPU is out of range.
at::Tensor embed(const at::Tensor& weight, const at::Tensor& ids);

// Next-token logits, fp32 [T, V]: rms_norm(x, norm_weight, eps) head^T computed in x's dtype.
// x [T, H], norm_weight [H], head [V, H]. Throws Error if shapes or dtypes do not fit.
at::Tensor logits(const at::Tensor& x, const at::Tensor& norm_weight, double eps,
                  const at::Tensor& head);

}  // namespace farskip
