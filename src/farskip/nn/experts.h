#pragma once

#include <ATen/core/Tensor.h>

namespace farskip {

// Routed experts of one rank on the rows that dispatch brought.
//   rows     [N, H], by source rank, then local expert: block (r, e) has counts[r][e] rows
//   counts   int64 [ranks, E] on the rows' device; E consecutive local experts. They sum to N on a
//            CPU, where that is checked; on a GPU to N or less, and results behind them are
//            undefined
//   gate_up  [local, 2I, H] (gate rows, then up rows), down [local, H, I]: all local experts
//   first_expert: the local expert of counts' first column (a chunk uses a part of the weights)
// Result [N, H] in the order of `rows`: (silu(x Wg^T) * (x Wu^T)) Wd^T, each row by its expert.
// All rows of an expert are multiplied in one go, so how experts are cut into chunks changes no
// bit. Throws Error if shapes or dtypes do not fit, or if counts are negative or do not sum to N.
at::Tensor experts(const at::Tensor& rows, const at::Tensor& counts, const at::Tensor& gate_up,
                   const at::Tensor& down, int64_t first_expert = 0);

// Of one rank that has all experts, from tokens: x [T, H], and the slot t * top_k + j that each of
// the T * top_k rows by expert holds (DispatchPlan::order); counts int64 [1, E]. Result by expert,
// with the bits of experts(permute(x, order, top_k), ...).
at::Tensor experts_of_tokens(const at::Tensor& x, const at::Tensor& order, int64_t top_k,
                             const at::Tensor& counts, const at::Tensor& gate_up,
                             const at::Tensor& down);

// The same, keeping what the gradient needs, with the weights of just the E experts.
struct ExpertsOutput {
  at::Tensor rows;      // [N, H], as experts
  at::Tensor products;  // [N, 2I]: x gate_up^T, by expert and then source rank
};
ExpertsOutput experts_saving(const at::Tensor& rows, const at::Tensor& counts,
                             const at::Tensor& gate_up, const at::Tensor& down);

// Only what the gradient needs, with the bits of experts_saving.
at::Tensor experts_products(const at::Tensor& rows, const at::Tensor& counts,
                            const at::Tensor& gate_up);

}  // namespace farskip
