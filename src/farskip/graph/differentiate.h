#pragma once

#include "farskip/graph/graph.h"

namespace farskip {

// The backward step behind a forward one that ends in a loss: the same ops, and the gradient by
// every parameter of the loss and of the routers' own losses, as values of kind gradient that ops
// add to. Outputs: those of the forward step, and the routers' losses where there are any
// (step_outputs.h).
//
// Input gradients, which communication waits for, and weight gradients, which fill its gaps, are
// ops of their own; what both need is a value between them, so nothing is computed twice. Forward
// ops leave behind what backward needs of them as further outputs (`saved` below). Collectives have
// duals that move rows the other way by the counts that the forward step exchanged: no counts are
// exchanged, and the host does not wait. The gradient of a value that several ops read is the sum
// over its readers, the last first; where a parameter is used twice, its gradient is added to in
// program order. Rewrites apply to the result.
//
// Saved by forward ops, rows as their first output:
//   attention_prepare   fp of the step [T, width of the first product]: that product, before norms
//                       and clipping change it; only where there are norms
//   attention_core      fp32 [T, heads]: log-sum-exp of the scores
//   experts, shared_experts, dense_mlp   [rows, 2 I]: products with gate and up; of experts by
//                       expert, then source rank
//   router              fp32 [T, experts]: logits
//   loss                fp32 [T]: log-sum-exp of the logits
// Deltas are the gradients of an op's inner products, which its weight gradients follow from:
//   attention_prepare_gradient   by the first product; then latent attention: by q_b's (with q_b),
//                       by kv_b's, and by what the inner norms made [T, q_lora + kv_lora]
//   mlp_gradient, experts_gradient   by the products with gate and up; and `activated` [rows, I]
//
// `gradients`: the dtype that gradients of parameters are kept in. Throws GraphError for a graph
// that does not end in a loss, or was rewritten already; UnsupportedError for per-rank dispatch and
// for the replicated form.
Graph differentiate(const Graph& forward, DType gradients = DType::float32);

// The last op of a step's forward pass, also of a rewritten one: what makes the loss, of several
// micro-batches the last of them. Of a step without a loss, the last op.
OpId last_forward_op(const Graph& step);

}  // namespace farskip
