#pragma once

#include <memory>
#include <vector>

#include "farskip/comm/local.h"

namespace farskip {

// The groups of one rank of a pipeline.
struct StageRank {
  std::unique_ptr<Group> within;   // the ranks of its stage
  std::unique_ptr<Group> between;  // the same rank of every stage, in the order of stages
};

// Ranks that are threads of this process: all of the first stage, then all of the next. Throws as
// make_local_groups.
std::vector<StageRank> make_local_stages(int stages, int ranks_of_stage, LocalOptions options = {});

// Of ranks without a pipeline, whose `between` is null.
std::vector<StageRank> in_one_stage(std::vector<std::unique_ptr<Group>> groups);

}  // namespace farskip
