#include "farskip/cuda/expert_order.h"

#include <ATen/ops/empty.h>
#include <c10/cuda/CUDAGuard.h>

#include "farskip/base/error.h"
#include "farskip/cuda/check.h"
#include "farskip/cuda/expert_order_kernels.h"

namespace farskip::cuda {

ExpertOrder order_by_expert(const at::Tensor& counts, int64_t rows) {
  require_on_gpu(counts, {-1, -1}, at::kLong, "counts of rows");
  require_dense_rows(counts, "counts of rows");
  if (counts.numel() > max_expert_blocks || rows > INT32_MAX) {
    throw UnsupportedError(
        "there is no kernel to order so many rows by expert",
        {.where = "order_by_expert",
         .expected = "at most " + std::to_string(max_expert_blocks) + " blocks and 2^31 rows",
         .found = std::to_string(counts.numel()) + " and " + std::to_string(rows)});
  }
  const bool scattered = counts.size(0) > 1 && counts.size(1) > 1;
  ExpertOrder result{.order = {},
                     .inverse = {},
                     .ends = at::empty({counts.size(1)}, counts.options().dtype(at::kInt))};
  ExpertOrderArguments arguments{.counts = counts.const_data_ptr<int64_t>(),
                                 .stride = counts.stride(0),
                                 .ranks = static_cast<int>(counts.size(0)),
                                 .experts = static_cast<int>(counts.size(1)),
                                 .rows = scattered ? static_cast<int>(rows) : 0,
                                 .order = nullptr,
                                 .inverse = nullptr,
                                 .ends = result.ends.mutable_data_ptr<int32_t>()};
  if (scattered) {
    result.order = at::empty({rows}, counts.options());
    result.inverse = at::empty({rows}, counts.options());
    arguments.order = result.order.mutable_data_ptr<int64_t>();
    arguments.inverse = result.inverse.mutable_data_ptr<int64_t>();
  }
  if (counts.numel() == 0) return result;
  const c10::cuda::CUDAGuard guard(counts.device());
  launch_expert_order(arguments, stream_of(counts));
  return result;
}

}  // namespace farskip::cuda
