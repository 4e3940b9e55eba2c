#pragma once

#include <vector>

namespace farskip {

// Which rank holds which routed experts. Every expert has exactly one rank for now.
class Placement {
 public:
  // Experts in order, as even as can be: the first `experts % ranks` ranks hold one more.
  // Throws ConfigError if ranks < 1 or experts < ranks.
  static Placement contiguous(int experts, int ranks);
  // experts_of_rank[r]: expert ids of rank r, ascending. Throws ConfigError unless every expert
  // appears exactly once.
  static Placement from_table(std::vector<std::vector<int>> experts_of_rank);

  int ranks() const { return static_cast<int>(experts_of_rank_.size()); }
  int experts() const { return static_cast<int>(rank_of_.size()); }
  const std::vector<int>& experts_of(int rank) const { return experts_of_rank_.at(rank); }
  int rank_of(int expert) const { return rank_of_.at(expert); }
  int most_local_experts() const;

 private:
  std::vector<std::vector<int>> experts_of_rank_;
  std::vector<int> rank_of_;
};

}  // namespace farskip
