#pragma once

#include <ATen/core/Tensor.h>

#include <span>

namespace farskip {

// Where each of a rank's T * k (token, choice) slots goes in the buffers of dispatch and combine.
// Rows lie by position of their expert (chunk-major, then rank, then local expert: whatever order
// position_of_expert says), and by slot within an expert.
struct DispatchPlan {
  at::Tensor order;    // int64 [T * k]: the slot t * k + j that each row holds
  at::Tensor inverse;  // int64 [T * k]: the row that holds each slot
  at::Tensor counts;   // int64 [experts]: rows of each position
};

// `experts` int64 [T, k] ids; `position_of_expert` int64 [experts], a bijection onto
// [0, experts). Both on one device. Throws Error if shapes or dtypes do not fit, an id is out of
// range, or position_of_expert is no bijection (checked on the CPU).
DispatchPlan make_plan(const at::Tensor& experts, const at::Tensor& position_of_expert);

// The plan of rows that go by a key of their own, stable: `keys` int64 of any shape, from 0 to
// count - 1, row i of the flat keys being slot i; counts [count]. Throws Error as make_plan.
DispatchPlan sort_by_key(const at::Tensor& keys, int64_t count);

// Rows of x [T, H] in the order of `order` (any part of DispatchPlan::order, for a chunk):
// [order.size(0), H], row i is token order[i] / top_k. Throws Error if a slot is out of range.
at::Tensor permute(const at::Tensor& x, const at::Tensor& order, int64_t top_k);

// As permute, into `out` [order.size(0), H] of x's dtype, whose rows may lie apart.
void permute_out(const at::Tensor& out, const at::Tensor& x, const at::Tensor& order,
                 int64_t top_k);

// The same from the inverse, int64 [T * k]: row inverse[t * k + j] - first_row of `out` [n, H]
// becomes row t of x [T, H], for those that are rows of `out`; others (-1: the slot has no row) are
// left out. Several calls with parts of x fill one `out`. Throws Error if shapes or dtypes do not
// fit.
void permute_by_inverse_out(const at::Tensor& out, const at::Tensor& x, const at::Tensor& inverse,
                            int64_t top_k, int64_t first_row = 0);

// Brings expert outputs home: out[t] = sum over j of weights[t, j] * row(inverse[t * k + j]), in
// the order of j (ascending expert ids, as Routing has them), accumulated in fp32 and rounded once.
// `chunks`: tensors [n_i, H] that make up the T * k rows one after the other; where the rows are
// cut changes no bit. `inverse` int64 [T * k], where -1 is a slot that has no row and adds nothing;
// `weights` fp32 [T, k]; result [T, H] in the chunks' dtype. Throws Error if shapes, dtypes or row
// numbers do not fit.
at::Tensor unpermute(std::span<const at::Tensor> chunks, const at::Tensor& inverse,
                     const at::Tensor& weights);
at::Tensor unpermute(const at::Tensor& rows, const at::Tensor& inverse, const at::Tensor& weights);
// As unpermute, into contiguous `out` [T, H].
void unpermute_out(const at::Tensor& out, std::span<const at::Tensor> chunks,
                   const at::Tensor& inverse, const at::Tensor& weights);

}  // namespace farskip
