#pragma once

#include <ATen/core/Tensor.h>

// The gradients of RMS norms on a GPU, as farskip/nn/norm_gradient.h defines them. fp32 and bf16,
// computed in fp32; x and d_y [rows, H] or [rows, heads, d], dense in the last dimension, of one
// dtype and device. Kernels go to the calling thread's current stream of that device and the host
// does not wait; the order of every sum follows from the shapes and the device's kind alone. Throws
// Error if shapes, dtypes or devices do not fit, UnsupportedError for other dtypes, for rows of
// more than 16,384 (fp32: 8,192) elements, and in builds without CUDA.
namespace farskip::cuda {

// By x, into `out`, shaped as x and dense in the last dimension; weight [H] or [d].
void rms_norm_gradient_out(const at::Tensor& out, const at::Tensor& d_y, const at::Tensor& x,
                           const at::Tensor& weight, double eps);

// By the weight: fp32 [H] or [d], the sum over all rows.
at::Tensor rms_norm_weight_gradient(const at::Tensor& d_y, const at::Tensor& x, double eps);

}  // namespace farskip::cuda
