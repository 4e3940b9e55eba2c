#include "farskip/comm/stages.h"

#include <algorithm>
#include <iterator>
#include <utility>

namespace farskip {

std::vector<StageRank> make_local_stages(int stages, int ranks_of_stage, LocalOptions options) {
  std::vector<StageRank> ranks;
  for (int stage = 0; stage < stages; ++stage) {
    std::ranges::move(in_one_stage(make_local_groups(ranks_of_stage, options)),
                      std::back_inserter(ranks));
  }
  for (int rank = 0; rank < ranks_of_stage; ++rank) {
    std::vector<std::unique_ptr<Group>> groups = make_local_groups(stages, options);
    for (int stage = 0; stage < stages; ++stage) {
      ranks[static_cast<size_t>(stage * ranks_of_stage + rank)].between = std::move(groups[stage]);
    }
  }
  return ranks;
}

std::vector<StageRank> in_one_stage(std::vector<std::unique_ptr<Group>> groups) {
  std::vector<StageRank> ranks;
  for (std::unique_ptr<Group>& group : groups) {
    ranks.push_back({.within = std::move(group), .between = nullptr});
  }
  return ranks;
}

}  // namespace farskip
