#pragma once

#include <ATen/core/Tensor.h>

// Who goes where in the dispatch form per-rank: a token travels once to each rank that holds some
// of its experts, with the first chunk of that rank's experts that needs it, and one row returns
// with the last. Rows go out by first chunk, rank and token, and come back by last chunk, rank and
// then as they went out. On a GPU by operators, for which the host never waits; at most 511 chunks
// x ranks and local experts there.
namespace farskip {

// Where each expert is: int64 [experts] tables on the tokens' device.
struct ExpertHomes {
  at::Tensor rank, chunk;  // chunk: of its rank's experts
  at::Tensor local;        // its number among its rank's experts
};

// What a rank counts of the rows between it and another one, for each chunk: columns of counts.
enum class RankRows {
  dispatched,  // that go out with the chunk
  returned,    // that come back with it
  computed,    // by an expert of it
};

// The plan of the tokens' own rank.
struct RankPlan {
  at::Tensor order;    // int64 [T * k]: the slot t * k + j that each row goes out for, the first of
                       // its token on that rank; behind the rows, slots that need none
  at::Tensor inverse;  // int64 [T * k]: rows that come back for each token, by ascending rank, then
                       // -1
  at::Tensor counts;   // int64 [ranks, 3 * chunks]: column RankRows * chunks + chunk
};

// `experts` int64 [T, k] ids, distinct in each row. Throws Error if shapes or dtypes do not fit or
// an id is out of range.
RankPlan make_rank_plan(const at::Tensor& experts, const ExpertHomes& homes, int64_t ranks,
                        int64_t chunks);

// What travels beside a row, for the slot that it goes out for: local experts int64 [n, k] (-1: on
// another rank) and weights fp32 [n, k] of its token, ascending expert ids as Routing has them.
struct RowChoices {
  at::Tensor experts, weights;
};
RowChoices row_choices(const at::Tensor& experts, const at::Tensor& weights,
                       const at::Tensor& slots, const ExpertHomes& homes);

// Where received rows come, by local expert and then as they were received.
struct SlotPlaces {
  at::Tensor places;  // int64 [n * k], -1 where a choice is on another rank
  at::Tensor counts;  // int64 [local experts]
};
// `experts` int64 [n, k], as row_choices gives them. Throws Error for an expert that is not there
// (checked on the CPU).
SlotPlaces place_slots(const at::Tensor& experts, int64_t local_experts);

// The order in which received rows go back: int64 [n], by last chunk, source rank, then as they
// were received. `experts` as above, `sources` int64 [n].
at::Tensor return_order(const at::Tensor& experts, const at::Tensor& sources, int64_t local_experts,
                        int64_t ranks, int64_t chunks);

}  // namespace farskip
