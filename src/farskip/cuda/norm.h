#pragma once

#include <ATen/core/Tensor.h>

#include <span>

// The residual stream on a GPU: sums and RMS norms, as farskip/nn/norm.h and the CPU's sum kernel
// define them. fp32 and bf16; all tensors of a call have one dtype and one device. Kernels go to
// the calling thread's current stream of that device and the host does not wait. The order of
// summation in a row follows from its width alone. Throws Error if shapes, dtypes or devices do not
// fit, UnsupportedError for other dtypes, for norms of more than 16,384 (fp32: 8,192) elements, and
// in builds without CUDA.
namespace farskip::cuda {

// out = ((a + b) + c) + ..., each sum rounded to the dtype. At least one term; terms and `out` are
// contiguous and of one shape. `out` may be the first term.
void sum_out(const at::Tensor& out, std::span<const at::Tensor> terms);

// Root-mean-square norm of the last dimension of x [rows, H] or [rows, heads, d], which must be
// dense in x and out: in fp32, rounded, then times weight [H] or [d]. `out` may be x.
void rms_norm_out(const at::Tensor& out, const at::Tensor& x, const at::Tensor& weight, double eps);

// Both in one pass: sum = ((a + b) + c) + ... and normed = rms_norm(sum). All are contiguous
// [rows, H]; weight [H]. `sum` may be the first term and must not be `normed`; undefined, it is not
// stored.
void sum_rms_norm_out(const at::Tensor& sum, const at::Tensor& normed,
                      std::span<const at::Tensor> terms, const at::Tensor& weight, double eps);

}  // namespace farskip::cuda
