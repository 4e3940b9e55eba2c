#pragma once

#include <ATen/core/Tensor.h>

#include "farskip/nn/weight_gradient.h"

namespace farskip {

// The rows of a rank's experts, brought together by expert: dispatch leaves them by source rank.
class ExpertRows {
 public:
  // counts int64 [ranks, experts] of `rows` rows, on their device. On a GPU the host does not wait,
  // and the last of `rows` may be no rows at all: results of these are undefined. Throws Error if
  // the counts are negative or do not sum to `rows` (checked on the CPU).
  ExpertRows(const at::Tensor& counts, int64_t rows);

  // Rows [n, ...] by source rank and then expert, as rows by expert and then source rank: without a
  // copy where that is the same.
  at::Tensor by_expert(const at::Tensor& rows) const;
  // The way back.
  at::Tensor by_source(const at::Tensor& rows) const;

  // How many rows there are: int32 [1] on the device; of one expert or more.
  at::Tensor row_count() const { return ends_.narrow(0, ends_.size(0) - 1, 1); }

  // Rows by expert [n, K], each times its expert's matrix [experts, K, M] of any strides: [n, M].
  at::Tensor product(const at::Tensor& rows, const at::Tensor& matrices) const;
  // Each expert's a^T b as its part of the gradient [experts, A, B]: a [n, A], b [n, B] by expert.
  void weight_product(const WeightGradient& gradient, const at::Tensor& a,
                      const at::Tensor& b) const;

 private:
  at::Tensor order_, inverse_;  // int64 [n]; undefined where rows lie by expert already
  at::Tensor ends_;             // int32 [experts]: behind the last row of each
};

}  // namespace farskip
