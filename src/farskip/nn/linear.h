#pragma once

#include <ATen/core/Tensor.h>

namespace farskip {

// BLAS takes other kernels, with another order of summation, for matrices of fewer rows: products
// of fp32 rows on the CPU are computed on at least this many, zeros filled in, so that a row's bits
// do not depend on how many rows stand beside it. That holds with one intra-op thread, as
// ranks have it: with more, BLAS cuts the rows between threads and a cut may leave fewer.
inline constexpr int64_t least_product_rows = 4;

// x weight^T: x [rows, in], weight [out, in] of one dtype; result [rows, out] in that dtype. Any
// number of rows, zero included. Throws Error if shapes or dtypes do not fit.
at::Tensor linear(const at::Tensor& x, const at::Tensor& weight);

// As linear, into `out` [rows, out], which may be a part of a larger tensor.
void linear_out(const at::Tensor& out, const at::Tensor& x, const at::Tensor& weight);

// By head: out [rows, heads, out], whose heads may lie apart; head h is x weight[h]^T, with weight
// [heads, out, in]. Neither is copied where last dimensions are dense. Throws as linear.
void linear_by_head_out(const at::Tensor& out, const at::Tensor& x, const at::Tensor& weight);

}  // namespace farskip
