#pragma once

#include <ATen/core/Tensor.h>

#include <span>

// Rotation of queries and keys on a GPU, as farskip/nn/attention.h prepares them. `cos` and `sin`
// are fp32 [T, pairs], contiguous. Heads rotate the pairs (x_2i, x_2i+1) if `interleaved`, else
// (x_i, x_i+pairs); in fp32, rounded once, to the bits of the CPU's apply_rope_. fp32 and bf16, all
// of a call in one dtype and on one device. Kernels go to the calling thread's current stream; the
// host does not wait. Throws Error if shapes, dtypes or devices do not fit, UnsupportedError for
// other dtypes, for heads of an odd size or of more than 512 elements, and in builds without CUDA.
namespace farskip::cuda {

// cos and sin [T, pairs] of the angles positions[t] * radians[i], in fp32, times `magnitude`. All
// contiguous; positions int64 [T]. UnsupportedError for more than 256 pairs.
void rope_table_out(const at::Tensor& cos, const at::Tensor& sin, const at::Tensor& positions,
                    std::span<const float> radians, float magnitude);

// Norms (with weights [d], where they are defined) and then rotates, in place, every head of q
// [T, heads, d] and k [T, kv_heads, d]: parts of one tensor, or two. Of each head the first
// 2 * pairs elements rotate. Last dimensions are dense.
void grouped_rope_(const at::Tensor& q, const at::Tensor& k, const at::Tensor& q_norm,
                   const at::Tensor& k_norm, double eps, const at::Tensor& cos,
                   const at::Tensor& sin, bool interleaved);

// Latent attention, the last 2 * pairs elements of every head of q and k [T, heads, nope +
// 2 pairs]: q's rotate in place, k's become the rotated `k_rope` [T, 2 pairs], which all heads
// share. Last dimensions are dense; k_rope itself stays as it is.
void latent_rope_(const at::Tensor& q, const at::Tensor& k, const at::Tensor& k_rope,
                  const at::Tensor& cos, const at::Tensor& sin, bool interleaved);

}  // namespace farskip::cuda
