#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "farskip/nn/rank_plan.h"
#include "farskip/runtime/expert_layout.h"

// How many rows move, from the counts that ranks exchange, in host memory.
namespace farskip {

// Rows per rank and in all that one rank sends or receives in one chunk.
struct RowCounts {
  std::vector<int64_t> by_rank;
  int64_t total = 0;
};

// Per-expert dispatch. From `counts` int64 [experts], rows that this rank sends to each rank's
// experts, by rank and local expert.
RowCounts sent_rows(const ExpertLayout& layout, const at::Tensor& counts, int chunk);
// From `counts` int64 [ranks, local experts], rows that every rank sends to each expert here.
RowCounts received_rows(const ExpertLayout& layout, const at::Tensor& counts, int chunk, int rank);

// Per-rank dispatch. From `counts` int64 [ranks, 3 * chunks] as RankPlan has them, this rank's own
// or those that it received.
RowCounts rank_rows(const at::Tensor& counts, RankRows what, int chunk);
// The sum over all ranks and the chunks before `chunk`.
int64_t rank_rows_before(const at::Tensor& counts, RankRows what, int chunk);
// The columns of one kind: [ranks, chunks], a view on counts' device.
at::Tensor rank_row_columns(const at::Tensor& counts, RankRows what);

}  // namespace farskip
