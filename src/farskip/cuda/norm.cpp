#include "farskip/cuda/norm.h"

#include <c10/cuda/CUDAGuard.h>

#include <algorithm>
#include <vector>

#include "farskip/base/error.h"
#include "farskip/cuda/check.h"
#include "farskip/cuda/norm_kernels.h"

namespace farskip::cuda {
namespace {

void require_terms(const at::Tensor& out, std::span<const at::Tensor> terms) {
  if (terms.empty()) {
    throw Error("nothing to sum", {.where = "sum", .expected = "a term or more", .found = "none"});
  }
  for (const at::Tensor& term : terms) {
    require_on_gpu(term, out.sizes(), out.scalar_type(), "sum term");
    require_one_device("sum", {out, term});
    require_contiguous(term, "sum term");
  }
}

// Sums all terms but as many as one launch can take; those are returned, what was summed so far in
// front of them.
Terms last_terms(const at::Tensor& sum, std::span<const at::Tensor> terms) {
  Terms next{};
  for (const at::Tensor& term : terms) {
    if (next.count == max_terms) {
      launch_sum(element_of(sum, "sum"), sum.mutable_data_ptr(), next, sum.numel(), stream_of(sum));
      next = {.address = {sum.const_data_ptr()}, .count = 1};
    }
    next.address[next.count++] = term.const_data_ptr();
  }
  return next;
}

void require_norm(const at::Tensor& x, const at::Tensor& weight) {
  const int64_t width = x.size(-1);
  require_on_gpu(weight, {width}, x.scalar_type(), "rms_norm weight");
  require_one_device("rms_norm", {x, weight});
  require_contiguous(weight, "rms_norm weight");
  const int64_t most = max_row_packs * access_bytes / size_of(element_of(x, "rms_norm input"));
  if (width <= most) return;
  throw UnsupportedError("rows are too wide for the kernel",
                         {.where = "rms_norm input",
                          .expected = "up to " + std::to_string(most) + " elements",
                          .found = std::to_string(width),
                          .hint = {}});
}

}  // namespace

void sum_out(const at::Tensor& out, std::span<const at::Tensor> terms) {
  require_on_gpu(out, out.sizes(), "sum");
  require_contiguous(out, "sum");
  require_terms(out, terms);
  const Element element = element_of(out, "sum");
  if (out.numel() == 0) return;
  const c10::cuda::CUDAGuard guard(out.device());
  launch_sum(element, out.mutable_data_ptr(), last_terms(out, terms), out.numel(), stream_of(out));
}

void rms_norm_out(const at::Tensor& out, const at::Tensor& x, const at::Tensor& weight,
                  double eps) {
  if (x.defined() && x.dim() == 2 && out.defined()) {
    return rms_norm_out(out.unsqueeze(1), x.unsqueeze(1), weight, eps);
  }
  require_on_gpu(x, {-1, -1, -1}, "rms_norm input");
  require_on_gpu(out, x.sizes(), x.scalar_type(), "rms_norm output");
  require_one_device("rms_norm", {x, out});
  require_dense_rows(x, "rms_norm input");
  require_dense_rows(out, "rms_norm output");
  require_norm(x, weight);
  if (x.numel() == 0) return;
  const c10::cuda::CUDAGuard guard(x.device());
  launch_rms_norm(element_of(x, "rms_norm input"),
                  {.terms = {.address = {x.const_data_ptr()}, .count = 1},
                   .sum = nullptr,
                   .normed = out.mutable_data_ptr(),
                   .weight = weight.const_data_ptr(),
                   .rows = x.size(0) * x.size(1),
                   .heads = x.size(1),
                   .width = x.size(2),
                   .in_stride = x.stride(0),
                   .in_head_stride = x.stride(1),
                   .out_stride = out.stride(0),
                   .out_head_stride = out.stride(1),
                   .eps = static_cast<float>(eps)},
                  stream_of(x));
}

void sum_rms_norm_out(const at::Tensor& sum, const at::Tensor& normed,
                      std::span<const at::Tensor> terms, const at::Tensor& weight, double eps) {
  require_on_gpu(normed, {-1, -1}, "rms_norm output");
  require_contiguous(normed, "rms_norm output");
  if (sum.defined()) {
    require_on_gpu(sum, normed.sizes(), normed.scalar_type(), "sum");
    require_contiguous(sum, "sum");
  }
  require_terms(normed, terms);
  require_one_device("sum_rms_norm", {normed, sum});
  require_norm(normed, weight);
  if (normed.numel() == 0) return;
  const c10::cuda::CUDAGuard guard(normed.device());
  launch_rms_norm(element_of(normed, "rms_norm output"),
                  {.terms = last_terms(sum.defined() ? sum : normed, terms),
                   .sum = sum.defined() ? sum.mutable_data_ptr() : nullptr,
                   .normed = normed.mutable_data_ptr(),
                   .weight = weight.const_data_ptr(),
                   .rows = normed.size(0),
                   .heads = 1,
                   .width = normed.size(1),
                   .in_stride = normed.size(1),
                   .in_head_stride = 0,
                   .out_stride = normed.size(1),
                   .out_head_stride = 0,
                   .eps = static_cast<float>(eps)},
                  stream_of(normed));
}

}  // namespace farskip::cuda
