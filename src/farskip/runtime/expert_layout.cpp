#include "farskip/runtime/expert_layout.h"

#include <ATen/ops/empty.h>

#include <numeric>

namespace farskip {

ExpertLayout::ExpertLayout(const Placement& placement, int chunks)
    : ranks_(placement.ranks()),
      chunks_(chunks),
      position_of_expert_(at::empty({placement.experts()}, at::kLong)) {
  for (int rank = 0; rank < ranks_; ++rank) {
    experts_of_.push_back(static_cast<int64_t>(placement.experts_of(rank).size()));
  }
  int64_t* position = position_of_expert_.mutable_data_ptr<int64_t>();
  int64_t next = 0;
  for (int chunk = 0; chunk < chunks; ++chunk) {
    for (int rank = 0; rank < ranks_; ++rank) {
      first_positions_.push_back(next);
      const Range local = local_experts(chunk, rank);
      for (int64_t e = local.first; e < local.last; ++e) {
        position[placement.experts_of(rank)[e]] = next++;
      }
    }
  }
  first_positions_.push_back(next);
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

RowCounts sent_rows(const ExpertLayout& layout, const at::Tensor& counts, int chunk) {
  const int64_t* rows = counts.const_data_ptr<int64_t>();
  RowCounts sent;
  for (int rank = 0; rank < layout.ranks(); ++rank) {
    const Range range = layout.positions(chunk, rank);
    sent.by_rank.push_back(std::accumulate(rows + range.first, rows + range.last, int64_t{0}));
    sent.total += sent.by_rank.back();
  }
  return sent;
}

RowCounts received_rows(const ExpertLayout& layout, const at::Tensor& counts, int chunk, int rank) {
  const int64_t* rows = counts.const_data_ptr<int64_t>();
  const Range local = layout.local_experts(chunk, rank);
  RowCounts received;
  for (int from = 0; from < layout.ranks(); ++from, rows += counts.size(1)) {
    received.by_rank.push_back(std::accumulate(rows + local.first, rows + local.last, int64_t{0}));
    received.total += received.by_rank.back();
  }
  return received;
}

}  // namespace farskip
