#pragma once

#include <ATen/core/Tensor.h>

namespace farskip {

// out = silu(gate) * up, where gate_up [rows, 2S] holds gate in its first S columns and up in the
// rest; out [rows, S]. Rows are independent of each other. `row_count`: int32 [1] on the device:
// rows behind so many need not be computed; undefined: all are. Throws Error if shapes do not fit.
void silu_multiply_out(const at::Tensor& out, const at::Tensor& gate_up,
                       const at::Tensor& row_count = {});

// The SwiGLU block of shared experts and dense layers: (silu(x Wg^T) * (x Wu^T)) Wd^T.
// x [rows, H], gate_up [2S, H] (gate rows, then up rows), down [H, S]; result [rows, H].
// Throws Error if shapes or dtypes do not fit.
at::Tensor swiglu(const at::Tensor& x, const at::Tensor& gate_up, const at::Tensor& down);

// As swiglu, into `out` [rows, H].
void swiglu_out(const at::Tensor& out, const at::Tensor& x, const at::Tensor& gate_up,
                const at::Tensor& down);

// As swiglu_out, keeping x gate_up^T in `products` [rows, 2S], which its gradient needs.
void swiglu_saving_out(const at::Tensor& out, const at::Tensor& products, const at::Tensor& x,
                       const at::Tensor& gate_up, const at::Tensor& down);

}  // namespace farskip
