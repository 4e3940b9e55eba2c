#pragma once

#include <ATen/core/Tensor.h>

// Cross-entropy on a GPU, as farskip/nn/loss.h defines it, in one pass over the logits each way.
// logits [T, V] contiguous, fp32 or bf16, computed in fp32; labels int64 [T] contiguous, negative:
// none; label_count fp32 [1]. Labels are not checked, since that would make the host wait: one that
// is V or more makes the loss NaN. Kernels go to the calling thread's current stream of the
// tensors' device and the host does not wait; the order of every sum follows from the shapes alone.
// Throws Error if shapes, dtypes or devices do not fit, UnsupportedError for other dtypes of logits
// and in builds without CUDA.
namespace farskip::cuda {

// loss fp32 [1], log_sum_exp fp32 [T].
void cross_entropy_out(const at::Tensor& loss, const at::Tensor& log_sum_exp,
                       const at::Tensor& logits, const at::Tensor& labels,
                       const at::Tensor& label_count);

// By the logits, in their dtype: out [T, V] contiguous.
void cross_entropy_gradient_out(const at::Tensor& out, const at::Tensor& logits,
                                const at::Tensor& labels, const at::Tensor& label_count,
                                const at::Tensor& log_sum_exp);

}  // namespace farskip::cuda
