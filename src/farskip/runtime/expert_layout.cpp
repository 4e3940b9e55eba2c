#include "farskip/runtime/expert_layout.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

namespace farskip {

ExpertLayout::ExpertLayout(const Placement& placement, int chunks)
    : ranks_(placement.ranks()),
      chunks_(chunks),
      position_of_expert_(at::empty({placement.experts()}, at::kLong)),
      positions_by_rank_(at::empty_like(position_of_expert_)),
      homes_{.rank = at::empty_like(position_of_expert_),
             .chunk = at::empty_like(position_of_expert_),
             .local = at::empty_like(position_of_expert_)} {
  for (int rank = 0; rank < ranks_; ++rank) {
    experts_of_.push_back(static_cast<int64_t>(placement.experts_of(rank).size()));
  }
  int64_t* position = position_of_expert_.mutable_data_ptr<int64_t>();
  int64_t* home_rank = homes_.rank.mutable_data_ptr<int64_t>();
  int64_t* home_chunk = homes_.chunk.mutable_data_ptr<int64_t>();
  int64_t* number = homes_.local.mutable_data_ptr<int64_t>();
  int64_t next = 0;
  for (int chunk = 0; chunk < chunks; ++chunk) {
    for (int rank = 0; rank < ranks_; ++rank) {
      first_positions_.push_back(next);
      const Range local = local_experts(chunk, rank);
      for (int64_t e = local.first; e < local.last; ++e) {
        const int expert = placement.experts_of(rank)[e];
        position[expert] = next++;
        home_rank[expert] = rank;
        home_chunk[expert] = chunk;
        number[expert] = e;
      }
    }
  }
  first_positions_.push_back(next);
  int64_t* by_rank = positions_by_rank_.mutable_data_ptr<int64_t>();
  for (int rank = 0; rank < ranks_; ++rank) {
    for (int chunk = 0; chunk < chunks; ++chunk) {
      const Range range = positions(chunk, rank);
      for (int64_t p = range.first; p < range.last; ++p) *by_rank++ = p;
    }
  }
}

Range ExpertLayout::positions(int chunk, int rank) const {
  const int block = chunk * ranks_ + rank;
  return {first_positions_.at(block), first_positions_.at(block + 1)};
}

Range ExpertLayout::positions(int chunk) const {
  return {first_positions_.at(chunk * ranks_), first_positions_.at((chunk + 1) * ranks_)};
}

Range ExpertLayout::local_experts(int chunk, int rank) const {
  return even_cut(experts_of_.at(rank), chunk, chunks_);
}

}  // namespace farskip
