#include "farskip/comm/stages.h"

#include <utility>

namespace farskip {

std::vector<StageRank> make_local_stages(int stages, int ranks_of_stage, LocalOptions options) {
  std::vector<StageRank> ranks;
  for (int stage = 0; stage < stages; ++stage) {
    for (std::unique_ptr<Group>& group : make_local_groups(ranks_of_stage, options)) {
      ranks.push_back({.within = std::move(group), .between = nullptr});
    }
  }
  for (int rank = 0; rank < ranks_of_stage; ++rank) {
    std::vector<std::unique_ptr<Group>> groups = make_local_groups(stages, options);
    for (int stage = 0; stage < stages; ++stage) {
      ranks[static_cast<size_t>(stage * ranks_of_stage + rank)].between = std::move(groups[stage]);
    }
  }
  return ranks;
}

}  // namespace farskip
