#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "farskip/model/placement.h"
#include "farskip/nn/rank_plan.h"
#include "farskip/runtime/sizes.h"

namespace farskip {

// The order in which rows for all experts lie in the buffers of dispatch and combine: by chunk,
// then by rank, then by the rank's local experts; chunk c of a rank with n experts holds its local
// experts [c n / chunks, (c + 1) n / chunks). So the rows of one chunk are contiguous, and within
// it those for one rank. Immutable.
class ExpertLayout {
 public:
  ExpertLayout(const Placement& placement, int chunks);

  int ranks() const { return ranks_; }
  int chunks() const { return chunks_; }
  // int64 [experts]: the position of every expert id.
  const at::Tensor& position_of_expert() const { return position_of_expert_; }
  // int64 [experts]: all positions by rank, then chunk; the same for one chunk.
  const at::Tensor& positions_by_rank() const { return positions_by_rank_; }
  // Where every expert id is, in host memory.
  const ExpertHomes& homes() const { return homes_; }
  int64_t experts_of(int rank) const { return experts_of_.at(rank); }
  // Positions of the experts of one rank in one chunk, and of a whole chunk.
  Range positions(int chunk, int rank) const;
  Range positions(int chunk) const;
  // Local experts of one rank in one chunk.
  Range local_experts(int chunk, int rank) const;

 private:
  int ranks_, chunks_;
  std::vector<int64_t> experts_of_;       // by rank
  std::vector<int64_t> first_positions_;  // by chunk and rank, and the end
  at::Tensor position_of_expert_, positions_by_rank_;
  ExpertHomes homes_;
};

}  // namespace farskip
