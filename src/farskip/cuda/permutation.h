#pragma once

#include <ATen/core/Tensor.h>

#include <span>

// What carries tokens to their experts and back on a GPU, with the meaning of
// farskip/nn/permutation.h. Rows are fp32 or bf16 with a dense last dimension; indices are not
// checked, since that would make the host wait. Kernels go to the calling thread's current stream
// of the tensors' device; the host does not wait. Throws Error if shapes, dtypes or devices do not
// fit, UnsupportedError for other dtypes, for more than 32 choices a token, and in builds without
// CUDA.
namespace farskip::cuda {

// Elements of a row that share a scale in FP8.
inline constexpr int64_t quantization_block = 128;

// out[i] = x[order[i] / top_k], cast to out's dtype: x [T, H], out [n, H], `order` int64 [n]
// contiguous: any part of a plan's order. Where it is -1, out stays as it is.
void permute_out(const at::Tensor& out, const at::Tensor& x, const at::Tensor& order,
                 int64_t top_k);

// Rows [first_row, first_row + n) of the same permutation, from the inverse: int64 [T * top_k]
// contiguous, the row of each slot, or -1: none. Every token is read once, so that it moves (1 +
// top_k) / (2 top_k) of permute_out's bytes where `out` is the whole.
void permute_by_inverse_out(const at::Tensor& out, const at::Tensor& x, const at::Tensor& inverse,
                            int64_t top_k, int64_t first_row = 0);

// As permute_by_inverse_out, to FP8: each block of 128 elements as x / scale rounded to e4m3, scale
// = max(largest |x| of the block, 1e-30) / 448. out Float8_e4m3fn [n, H], its rows aligned to 16
// bytes, scales fp32 [n, H / 128]; H a multiple of 128.
void permute_quantized_out(const at::Tensor& out, const at::Tensor& scales, const at::Tensor& x,
                           const at::Tensor& inverse, int64_t top_k, int64_t first_row = 0);

// What it wrote as rows of fp32 or bf16: out = values * scale in fp32, rounded once. out [n, H],
// values Float8_e4m3fn [n, H], rows aligned to 16 bytes, scales fp32 [n, H / 128].
void dequantize_out(const at::Tensor& out, const at::Tensor& values, const at::Tensor& scales);

// out[t] = sum over j of weights[t, j] * row(inverse[t * k + j]), in the order of j, in fp32 and
// rounded once, to the bits of the CPU's unpermute. `chunks`: tensors [n_i, H] that make up the
// rows one after the other; `inverse` int64 [T * k], -1 where a slot has no row and adds nothing,
// `weights` fp32 [T, k]; out [T, H]; all contiguous but the chunks' rows.
void unpermute_out(const at::Tensor& out, std::span<const at::Tensor> chunks,
                   const at::Tensor& inverse, const at::Tensor& weights);

}  // namespace farskip::cuda
