#include "farskip/model/routing_statistics.h"

#include <algorithm>
#include <cmath>

namespace farskip {
namespace {

double log_choose(double n, double k) {
  return std::lgamma(n + 1) - std::lgamma(k + 1) - std::lgamma(n - k + 1);
}

// Probability that none of `top_k` draws out of `pool` falls on `mine` of them.
double miss(double pool, double mine, int top_k) {
  if (pool - mine < top_k) return 0.0;
  return std::exp(log_choose(pool - mine, top_k) - log_choose(pool, top_k));
}

}  // namespace

double distinct_ranks(int experts, int top_k, int ranks) {
  return distinct_ranks_of_part(experts, top_k, ranks, 1, 1);
}

double distinct_ranks_of_part(int experts, int top_k, int ranks, int part, int parts) {
  const double mine = static_cast<double>(experts) / ranks * part / parts;
  return ranks * (1.0 - miss(experts, mine, top_k));
}

double share_first_reached(int experts, int top_k, int ranks, int part, int parts) {
  const auto reached = [&](int cuts) {
    return distinct_ranks_of_part(experts, top_k, ranks, cuts, parts);
  };
  return (reached(part + 1) - reached(part)) / reached(parts);
}

double distinct_ranks_grouped(int experts, int top_k, int ranks, int groups, int kept) {
  const bool even = ranks >= groups ? ranks % groups == 0 : groups % ranks == 0;
  if (groups <= 1 || kept >= groups || !even) return distinct_ranks(experts, top_k, ranks);
  if (ranks >= groups) {
    return distinct_ranks(experts * kept / groups, top_k, ranks / groups * kept);
  }
  // Several groups a rank: average over how many of them are kept.
  const int mine = groups / ranks;
  const double pool = static_cast<double>(experts) * kept / groups;
  double total = 0;
  for (int j = std::max(0, kept - (groups - mine)); j <= std::min(mine, kept); ++j) {
    const double chance = std::exp(log_choose(mine, j) + log_choose(groups - mine, kept - j) -
                                   log_choose(groups, kept));
    total += chance * (1.0 - miss(pool, static_cast<double>(experts) / groups * j, top_k));
  }
  return ranks * total;
}

}  // namespace farskip
