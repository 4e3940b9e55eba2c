#pragma once

#include <ATen/core/Tensor.h>

#include <tuple>
#include <vector>

#include "farskip/nn/attention.h"

namespace farskip {

// attention_core that also keeps the log-sum-exp of every query's scores, which its gradient needs.
struct AttentionSaved {
  at::Tensor out;          // [T, heads * value head]
  at::Tensor log_sum_exp;  // fp32 [T, heads]
};
AttentionSaved attention_core_saving(const AttentionInputs& inputs,
                                     const std::vector<int64_t>& lengths, double scale);

// The gradient of attention_core by q, k and v, shaped as `inputs` and dense in the last dimension.
// d_out [T, heads * value head]: the gradient by the output; `saved` as attention_core_saving made
// it under the same determinism. On a CPU each sequence is computed alone; on a GPU bits are the
// same from run to run only in ATen's deterministic mode. Throws Error if shapes do not fit.
AttentionInputs attention_core_gradient(const at::Tensor& d_out, const AttentionInputs& inputs,
                                        const AttentionSaved& saved,
                                        const std::vector<int64_t>& lengths, double scale);

namespace tensor_ops {

// Causal attention in ATen operators alone, where no fused kernel fits: it stores all scores. q, k
// [B, heads, S, qk], v and out [B, heads, S, value]. Output, and log-sum-exp of the scores
// [B, heads, S].
std::tuple<at::Tensor, at::Tensor> attend(const at::Tensor& q, const at::Tensor& k,
                                          const at::Tensor& v, double scale);
// The gradients by q, k and v.
std::tuple<at::Tensor, at::Tensor, at::Tensor> attend_backward(
    const at::Tensor& d_out, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
    const at::Tensor& out, const at::Tensor& log_sum_exp, double scale);

}  // namespace tensor_ops
}  // namespace farskip
