#pragma once

namespace farskip {

// What a router is expected to do, when every choice of top_k experts is equally likely.
// Formulas: docs/formulas.md section 2.

// Expected number of ranks that hold at least one of a token's `top_k` experts, if each rank holds
// `experts / ranks` of them.
double distinct_ranks(int experts, int top_k, int ranks);

// The same when only `kept` of `groups` equal groups may be chosen from, groups laid over the ranks
// in order. Falls back to distinct_ranks where groups do not divide evenly over ranks.
double distinct_ranks_grouped(int experts, int top_k, int ranks, int groups, int kept);

// Expected number of ranks reached through the first `part` of `parts` equal cuts of each rank's
// experts; parts == part gives distinct_ranks.
double distinct_ranks_of_part(int experts, int top_k, int ranks, int part, int parts);

// Of all ranks reached, the share that is reached through cut `part` (from 0) of `parts` and none
// before it.
double share_first_reached(int experts, int top_k, int ranks, int part, int parts);

}  // namespace farskip
