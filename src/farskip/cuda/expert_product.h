#pragma once

#include <ATen/core/Tensor.h>

namespace farskip::cuda {

// Products of rows with the matrix of each row's expert, on the matrix units of compute capability
// 9.0 (Hopper): on the current stream, the host never waits, and a row's bits depend on nothing but
// the row and its matrix. Throw Error if shapes, dtypes or devices do not fit.
//   ends   int32 [E]: behind the last row of each expert. Undefined: all rows are of one expert.
//          Rows behind the last end are left as they are.
//   order  int64, one for each row by expert: where it lies among `rows` or `out` that are not in
//          that order. Undefined: they are.

// Whether the functions below take such rows [n, K] and matrices [E, M, K]: bf16, dense, on a GPU
// of that kind, 16-byte addresses, K and M multiples of 8, fewer than 2^31 rows on either side.
bool has_expert_product(const at::Tensor& rows, const at::Tensor& matrices);

// Rows by expert [n, K]; out [n, M], in the order of `order`.
void expert_product_out(const at::Tensor& out, const at::Tensor& rows, const at::Tensor& matrices,
                        const at::Tensor& ends, const at::Tensor& order = {});

// silu(gate) * up of the products with gate_up [E, 2 S, K] (gate rows, then up rows), each rounded
// to bf16 as if operators made them one by one: out [n, S] by expert; rows [n / choices, K], of
// which row order[i] / choices comes at place i.
void expert_swiglu_out(const at::Tensor& out, const at::Tensor& rows, const at::Tensor& gate_up,
                       const at::Tensor& ends, const at::Tensor& order = {}, int64_t choices = 1);

// Whether rows [n, K] of one matrix [M, K] fill the GPU's matrix units with whole tiles: with
// fewer, libraries' kernels for few rows are faster.
bool fills_gpu(const at::Tensor& rows, const at::Tensor& matrix);

}  // namespace farskip::cuda
