#pragma once

#include <span>
#include <string_view>

#include "farskip/graph/graph.h"

namespace farskip {

// Which activations the backward pass computes again instead of reading what the forward pass kept.
enum class RecomputeKind {
  none,
  attention,  // norm, q, k and v, attention core
  experts,    // norm, products with gate and up of routed experts, shared experts and dense MLPs
  all,        // both
  // Both, and rows are dispatched again: a collective a layer, for the largest values that are
  // left.
  all_and_dispatch,
};
std::span<const RecomputeKind> recompute_kinds();  // in the order above
const char* to_string(RecomputeKind kind);         // "none", ..., "all-and-dispatch"
// By that name. Throws UsageError.
RecomputeKind recompute_kind(std::string_view name);

// The same step, holding less from the forward pass to the backward one: of the ops of the chosen
// kinds, what only backward ops read is computed again, by the same kernels on the same inputs.
// Keeps bits. Applies to what differentiate made, ahead of all other rewrites: those cut what is
// computed again as they cut what it repeats.
//
// Ops that compute again are marked (Attributes::again). Each stands right before the first
// gradient op that needs it, and runs after the gradient by its block's output is known (of
// attention, of the dense MLP or shared experts, of the routed experts): late enough to hold one
// layer at a time, soon enough to run beside the block's first communication. Of experts and MLPs,
// the product with down is not repeated, nor is the output projection: backward reads neither's
// result.
//
// Kept in every case: sums of the residual stream, which norms start from; the router's logits,
// choice and plan, so that no choice can differ from the one that was made; counts; and the rows
// that combine brought home, which the gradient by the routing weights reads: to have them again
// takes the experts' second product and a collective. Dispatched rows are kept as they came, unless
// chosen otherwise. On a single rank, which sends rows nowhere, both are computed again with the
// experts. Throws GraphError for a graph without a backward pass, or one that was rewritten.
Graph recompute(const Graph& backward, RecomputeKind kind);

}  // namespace farskip
