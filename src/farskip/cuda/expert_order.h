#pragma once

#include <ATen/core/Tensor.h>

namespace farskip::cuda {

// Where the rows that dispatch brought, which lie by source rank and then by expert, come when they
// lie by expert and then by source rank.
struct ExpertOrder {
  at::Tensor order;    // int64 [rows]: the row that comes at each place; -1 behind the last
  at::Tensor inverse;  // int64 [rows]: the place of each row; likewise
  at::Tensor ends;     // int32 [experts]: behind the last row of each expert
};

// From `counts` int64 [ranks, experts] on a GPU (rows of any stride), summing to no more than
// `rows`, which is not checked. With a single rank or expert, whose order is the one they have,
// only `ends`. The kernel goes to the calling thread's current stream of that device; the host does
// not wait. Throws Error if counts do not fit, UnsupportedError for more than 4,096 blocks of rows
// or 2^31 rows, and in builds without CUDA.
ExpertOrder order_by_expert(const at::Tensor& counts, int64_t rows);

}  // namespace farskip::cuda
