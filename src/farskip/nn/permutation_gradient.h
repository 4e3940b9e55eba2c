#pragma once

#include <ATen/core/Tensor.h>

namespace farskip {

// The gradients of unpermute and permute (permutation.h), whose rows go the other way. `inverse`
// int64 [T * k]: the row of each slot, -1 for a slot that has none; weights fp32 [T, k]; d_out
// [T, H]. Throw Error if shapes or dtypes do not fit.

// By unpermute's rows: weights[t, j] d_out[t] at row inverse[t k + j] of `rows` [n, H], whose other
// rows stay as they are.
void unpermute_gradient_out(const at::Tensor& rows, const at::Tensor& d_out,
                            const at::Tensor& inverse, const at::Tensor& weights);

// By unpermute's weights, fp32 [T, k]: d_out[t] . rows[inverse[t k + j]], summed in fp32.
at::Tensor routing_weights_gradient(const at::Tensor& d_out, const at::Tensor& rows,
                                    const at::Tensor& inverse, int64_t top_k);

// By permute's tokens [T, H]: the sum of d_rows over each token's slots.
at::Tensor permute_gradient(const at::Tensor& d_rows, const at::Tensor& inverse, int64_t top_k);

}  // namespace farskip
