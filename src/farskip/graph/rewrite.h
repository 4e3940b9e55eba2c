#pragma once

#include "farskip/graph/graph.h"

namespace farskip {

// Each rewrite returns a new graph and says in Graph::keeps_bits whether results stay bit-equal.
// All throw GraphError where they do not apply. Order of use: recompute (recompute.h), two_batch,
// merge_reductions, expert_chunks, pieces, fuse.

// Two micro-batches of half the sequences each, all ops twice, independent of each other. Changes
// rounding only where a kernel's bits depend on its number of rows. Expert loads are counted over
// both.
Graph two_batch(const Graph& graph);

// AR(x) + AR(y) -> AR(x + y) where both feed only the same sum, side by side: then neither is read
// alone and neither delays a reader. Changes rounding.
Graph merge_reductions(const Graph& graph);

// Permute, dispatch, experts and combine in n groups of each rank's local experts. Keeps bits: an
// expert sees the same rows, a token sums in the same order. n <= experts per rank. The step of a
// single rank, which dispatches nothing, stays as it is.
Graph expert_chunks(const Graph& graph, int chunks);

// Attention, output projection, shared experts and dense MLPs in n pieces, and the gradients by
// what they read: attention cores by sequences, the others by rows. Keeps bits where a kernel's
// bits do not depend on its row count.
Graph pieces(const Graph& graph, int pieces);

// Of a forward graph: what one launch can do in one pass over memory becomes one op. A sum and the
// norm that reads it; the permute and the experts of a rank that has all of them, whose rows are
// gathered as they are multiplied. Keeps bits where kernels do. A graph whose gradients are to be
// computed needs what lies between, and one to be cut into stages would send terms for their sum.
Graph fuse(const Graph& graph);

}  // namespace farskip
