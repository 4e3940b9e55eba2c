#pragma once

#include <ATen/core/Tensor.h>

namespace farskip {

// The gradient of swiglu (mlp.h) by its input, and what its weights' gradients follow from. With
// products = x gate_up^T [rows, 2 S], which the forward pass kept:
//   gradient by gate_up = deltas^T x      gradient by down = d_out^T activated
struct MlpGradient {
  at::Tensor rows;       // [rows, H]: by x
  at::Tensor deltas;     // [rows, 2 S]: by the products
  at::Tensor activated;  // [rows, S]: silu(gate) up
};
// d_out [rows, H], gate_up [2 S, H], down [H, S], all of one dtype. Throws Error if shapes do not
// fit.
MlpGradient swiglu_gradient(const at::Tensor& d_out, const at::Tensor& products,
                            const at::Tensor& gate_up, const at::Tensor& down);

// The gradient of silu(gate) up by gate and up, one beside the other as in `products` [rows, 2 S],
// from d_activated [rows, S]; and silu(gate) up itself.
struct SiluGradient {
  at::Tensor deltas, activated;
};
SiluGradient silu_multiply_gradient(const at::Tensor& d_activated, const at::Tensor& products);

}  // namespace farskip
