#include "farskip/model/placement.h"

#include <algorithm>
#include <string>
#include <utility>

#include "farskip/base/error.h"

namespace farskip {

Placement Placement::contiguous(int experts, int ranks) {
  if (ranks < 1 || experts < ranks) {
    throw ConfigError("experts can not be spread over these ranks",
                      {.where = "placement",
                       .expected = "1 to " + std::to_string(std::max(experts, 1)) + " ranks for " +
                                   std::to_string(experts) + " experts",
                       .found = std::to_string(ranks) + " ranks"});
  }
  std::vector<std::vector<int>> table(ranks);
  int next = 0;
  for (int rank = 0; rank < ranks; ++rank) {
    const int count = experts / ranks + (rank < experts % ranks ? 1 : 0);
    for (int i = 0; i < count; ++i) table[rank].push_back(next++);
  }
  return from_table(std::move(table));
}

Placement Placement::from_table(std::vector<std::vector<int>> experts_of_rank) {
  const auto refuse = [](size_t rank, const std::string& why, int expert) {
    throw ConfigError(why, {.where = "placement, rank " + std::to_string(rank),
                            .expected = "every expert on exactly one rank, ascending",
                            .found = "expert " + std::to_string(expert)});
  };
  size_t experts = 0;
  for (const auto& each : experts_of_rank) experts += each.size();
  if (experts == 0) {
    throw ConfigError("holds no experts", {.where = "placement", .expected = "at least one"});
  }
  Placement result;
  result.rank_of_.assign(experts, -1);
  for (size_t rank = 0; rank < experts_of_rank.size(); ++rank) {
    int before = -1;
    for (const int expert : experts_of_rank[rank]) {
      if (expert < 0 || expert >= static_cast<int>(experts)) refuse(rank, "gap in the ids", expert);
      if (result.rank_of_[expert] >= 0) refuse(rank, "expert placed twice", expert);
      if (expert < before) refuse(rank, "experts not in order", expert);
      before = expert;
      result.rank_of_[expert] = static_cast<int>(rank);
    }
  }
  result.experts_of_rank_ = std::move(experts_of_rank);
  return result;
}

int Placement::most_local_experts() const {
  size_t most = 0;
  for (const auto& each : experts_of_rank_) most = std::max(most, each.size());
  return static_cast<int>(most);
}

}  // namespace farskip
