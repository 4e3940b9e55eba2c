#include "farskip/nn/expert_rows.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/_grouped_mm.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/repeat_interleave.h>

#include <string>

#include "farskip/base/error.h"
#include "farskip/cuda/expert_order.h"
#include "farskip/cuda/expert_product.h"
#include "farskip/cuda/permutation.h"
#include "farskip/nn/check.h"
#include "farskip/nn/gpu.h"

namespace farskip {
namespace {

void check_counts(const at::Tensor& counts, int64_t rows) {
  const at::Tensor dense = counts.contiguous();
  const int64_t* count = dense.const_data_ptr<int64_t>();
  int64_t sum = 0;
  for (int64_t i = 0; i < dense.numel(); ++i) {
    const bool fits = count[i] >= 0 && count[i] <= rows - sum;
    if (!fits) {
      throw Error("row counts do not fit the rows",
                  {.where = "experts counts",
                   .expected = "0 to " + std::to_string(rows - sum) + " in this place",
                   .found = std::to_string(count[i])});
    }
    sum += count[i];
  }
  if (sum != rows) {
    throw Error("row counts do not fit the rows", {.where = "experts counts",
                                                   .expected = "a sum of " + std::to_string(rows),
                                                   .found = std::to_string(sum)});
  }
}

// Calls visit(expert, first row, rows) for every expert, on the CPU.
template <typename Visit>
void for_each_expert(const at::Tensor& ends, Visit visit) {
  const int32_t* end = ends.const_data_ptr<int32_t>();
  int64_t first = 0;
  for (int64_t expert = 0; expert < ends.size(0); ++expert) {
    visit(expert, first, end[expert] - first);
    first = end[expert];
  }
}

at::Tensor gather(const at::Tensor& rows, const at::Tensor& order) {
  if (!order.defined()) return rows;
  if (!has_gpu_kernels(rows)) return rows.index_select(0, order);
  at::Tensor out = at::empty(rows.sizes(), rows.options());
  cuda::permute_out(out, rows, order, 1);
  return out;
}

}  // namespace

ExpertRows::ExpertRows(const at::Tensor& counts, int64_t rows) {
  require_shape(counts, {-1, -1}, "experts counts");
  require_dtype(counts, at::kLong, "experts counts");
  if (counts.is_cuda() && cuda_is_built()) {
    cuda::ExpertOrder by = cuda::order_by_expert(counts, rows);
    order_ = std::move(by.order);
    inverse_ = std::move(by.inverse);
    ends_ = std::move(by.ends);
    return;
  }
  if (counts.is_cpu()) check_counts(counts, rows);
  ends_ = counts.sum(0).cumsum(0).to(at::kInt);
  if (counts.size(0) == 1 || counts.size(1) == 1) return;
  const at::Tensor sizes = counts.flatten();
  const at::Tensor firsts = (sizes.cumsum(0) - sizes).view_as(counts).t().flatten();
  const at::Tensor sizes_by_expert = counts.t().flatten();
  const at::Tensor places = sizes_by_expert.cumsum(0) - sizes_by_expert;
  const at::Tensor all = at::arange(rows, counts.options());
  order_ = at::repeat_interleave(firsts - places, sizes_by_expert, 0, rows) + all;
  inverse_ = at::empty_like(order_).scatter_(0, order_, all);
}

at::Tensor ExpertRows::by_expert(const at::Tensor& rows) const { return gather(rows, order_); }

at::Tensor ExpertRows::by_source(const at::Tensor& rows) const { return gather(rows, inverse_); }

at::Tensor ExpertRows::product(const at::Tensor& rows, const at::Tensor& matrices) const {
  require_shape(matrices, {ends_.size(0), rows.size(1), -1}, "expert matrices");
  const at::Tensor stored = matrices.transpose(1, 2);
  const bool has_kernel = cuda::has_expert_product(rows, stored);
  if (!has_kernel && !rows.is_cpu()) return at::_grouped_mm(rows, matrices, ends_);
  at::Tensor out = at::empty({rows.size(0), matrices.size(2)}, rows.options());
  if (has_kernel) {
    cuda::expert_product_out(out, rows, stored, ends_);
    return out;
  }
  for_each_expert(ends_, [&](int64_t expert, int64_t first, int64_t count) {
    if (count == 0) return;
    at::Tensor part = out.narrow(0, first, count);
    at::mm_out(part, rows.narrow(0, first, count), matrices.select(0, expert));
  });
  return out;
}

void ExpertRows::weight_product(const WeightGradient& gradient, const at::Tensor& a,
                                const at::Tensor& b) const {
  require_shape(gradient.tensor, {ends_.size(0), a.size(1), b.size(1)}, "expert gradients");
  if (!a.is_cpu()) return gradient.take(at::_grouped_mm(a.t(), b, ends_));
  for_each_expert(ends_, [&](int64_t expert, int64_t first, int64_t count) {
    const WeightGradient part{gradient.tensor.select(0, expert), gradient.add};
    part.take_product(a.narrow(0, first, count), b.narrow(0, first, count));
  });
}

}  // namespace farskip
