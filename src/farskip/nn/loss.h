#pragma once

#include <ATen/core/Tensor.h>

#include "farskip/nn/weight_gradient.h"

namespace farskip {

inline constexpr int64_t no_label = -100;

// Next-token cross-entropy: the sum over tokens that have a label of log-sum-exp(logits) -
// logits[label], over `label_count`, which may be of more tokens than these (of all ranks).
//   logits [T, V] of any floating dtype, read as fp32, labels int64 [T] in [0, V) or no_label,
//   label_count fp32 [1], all on one device.
struct CrossEntropy {
  at::Tensor loss;         // fp32 [1]; 0 without labels
  at::Tensor log_sum_exp;  // fp32 [T]
};
// Throws Error if shapes or dtypes do not fit, or a label on the CPU is out of range; one on a GPU
// makes the loss NaN.
CrossEntropy cross_entropy(const at::Tensor& logits, const at::Tensor& labels,
                           const at::Tensor& label_count);

// The gradient by the logits, (softmax(logits) - one at the label) / label_count, zero for tokens
// without a label, into `out` [T, V] of the logits' dtype.
void cross_entropy_gradient_out(const at::Tensor& out, const at::Tensor& logits,
                                const at::Tensor& labels, const at::Tensor& label_count,
                                const at::Tensor& log_sum_exp);

// The gradient of embed (head.h) by its table [V, H]: each token's row of d_rows [T, H] added to
// that of its id, in the tokens' order on a CPU.
void embedding_gradient(const WeightGradient& gradient, const at::Tensor& d_rows,
                        const at::Tensor& ids);

}  // namespace farskip
