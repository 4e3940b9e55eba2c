#include "farskip/runtime/row_counts.h"

#include <numeric>

namespace farskip {

RowCounts sent_rows(const ExpertLayout& layout, const at::Tensor& counts, int chunk) {
  const int64_t* rows = counts.const_data_ptr<int64_t>();
  RowCounts sent;
  for (int rank = 0; rank < layout.ranks(); ++rank) {
    const Range local = layout.local_experts(chunk, rank);
    sent.by_rank.push_back(std::accumulate(rows + local.first, rows + local.last, int64_t{0}));
    sent.total += sent.by_rank.back();
    rows += layout.experts_of(rank);
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

at::Tensor rank_row_columns(const at::Tensor& counts, RankRows what) {
  const int64_t chunks = counts.size(1) / 3;
  return counts.narrow(1, static_cast<int64_t>(what) * chunks, chunks);
}

RowCounts rank_rows(const at::Tensor& counts, RankRows what, int chunk) {
  const at::Tensor columns = rank_row_columns(counts, what);
  const int64_t* rows = columns.const_data_ptr<int64_t>() + chunk;
  RowCounts found;
  for (int64_t rank = 0; rank < columns.size(0); ++rank, rows += columns.stride(0)) {
    found.by_rank.push_back(*rows);
    found.total += *rows;
  }
  return found;
}

int64_t rank_rows_before(const at::Tensor& counts, RankRows what, int chunk) {
  int64_t total = 0;
  for (int before = 0; before < chunk; ++before) total += rank_rows(counts, what, before).total;
  return total;
}

}  // namespace farskip
