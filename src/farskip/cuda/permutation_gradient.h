#pragma once

#include <ATen/core/Tensor.h>

// The gradients of what carries tokens to their experts and back on a GPU, as
// farskip/nn/permutation_gradient.h defines them. Rows are fp32 or bf16 with a dense last
// dimension; `inverse` int64 [T * top_k] contiguous, -1 where a slot has no row, is not checked,
// since that would make the host wait. Kernels go to the calling thread's current stream of the
// tensors' device and the host does not wait; the order of a sum follows from the width alone.
// Throws Error if shapes, dtypes or devices do not fit, UnsupportedError for other dtypes, for more
// than 32 choices a token, and in builds without CUDA.
namespace farskip::cuda {

// rows[inverse[t k + j]] = weights[t, j] d_out[t], rounded once: rows [n, H], d_out [T, H], weights
// fp32 [T, k] contiguous. Other rows stay as they are.
void unpermute_gradient_out(const at::Tensor& rows, const at::Tensor& d_out,
                            const at::Tensor& inverse, const at::Tensor& weights);

// out[t, j] = d_out[t] . rows[inverse[t k + j]] in fp32, 0 where there is no row: out fp32 [T, k]
// contiguous.
void routing_weights_gradient_out(const at::Tensor& out, const at::Tensor& d_out,
                                  const at::Tensor& rows, const at::Tensor& inverse);

}  // namespace farskip::cuda
