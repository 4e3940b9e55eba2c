#include "farskip/cuda/norm_gradient.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <c10/cuda/CUDAGuard.h>

#include "farskip/base/error.h"
#include "farskip/cuda/check.h"
#include "farskip/cuda/norm_gradient_kernels.h"
#include "farskip/cuda/norm_kernels.h"

namespace farskip::cuda {
namespace {

// [rows, H] as [rows, 1, H].
at::Tensor by_heads(const at::Tensor& x) {
  return x.defined() && x.dim() == 2 ? x.unsqueeze(1) : x;
}

RowStrides strides_of(const at::Tensor& x) { return {x.stride(0), x.stride(1)}; }

// Of tensors [rows, heads, width]: what both gradients share.
NormGradientArguments arguments_of(const at::Tensor& d_y, const at::Tensor& x, double eps) {
  require_on_gpu(x, {-1, -1, -1}, "norm input");
  require_on_gpu(d_y, x.sizes(), x.scalar_type(), "norm gradient");
  require_one_device("rms_norm_gradient", {x, d_y});
  require_dense_rows(x, "norm input");
  require_dense_rows(d_y, "norm gradient");
  const int64_t most = max_row_packs * access_bytes / size_of(element_of(x, "norm input"));
  if (x.size(2) > most) {
    throw UnsupportedError("rows are too wide for the kernel",
                           {.where = "norm input",
                            .expected = "up to " + std::to_string(most) + " elements",
                            .found = std::to_string(x.size(2))});
  }
  return {.out = nullptr,
          .d_y = d_y.const_data_ptr(),
          .x = x.const_data_ptr(),
          .weight = nullptr,
          .out_strides = {},
          .d_y_strides = strides_of(d_y),
          .x_strides = strides_of(x),
          .rows = x.size(0) * x.size(1),
          .heads = x.size(1),
          .width = x.size(2),
          .eps = static_cast<float>(eps)};
}

}  // namespace

void rms_norm_gradient_out(const at::Tensor& out, const at::Tensor& d_y, const at::Tensor& x,
                           const at::Tensor& weight, double eps) {
  const at::Tensor to = by_heads(out), rows = by_heads(x);
  NormGradientArguments arguments = arguments_of(by_heads(d_y), rows, eps);
  require_on_gpu(to, rows.sizes(), rows.scalar_type(), "norm gradient output");
  require_on_gpu(weight, {rows.size(2)}, rows.scalar_type(), "norm weight");
  require_one_device("rms_norm_gradient", {rows, to, weight});
  require_dense_rows(to, "norm gradient output");
  require_contiguous(weight, "norm weight");
  if (rows.numel() == 0) return;
  arguments.out = to.mutable_data_ptr();
  arguments.out_strides = strides_of(to);
  arguments.weight = weight.const_data_ptr();
  const c10::cuda::CUDAGuard guard(rows.device());
  launch_rms_norm_gradient(element_of(rows, "norm input"), arguments, stream_of(rows));
}

at::Tensor rms_norm_weight_gradient(const at::Tensor& d_y, const at::Tensor& x, double eps) {
  const at::Tensor rows = by_heads(x);
  const NormGradientArguments arguments = arguments_of(by_heads(d_y), rows, eps);
  const auto options = rows.options().dtype(at::kFloat);
  if (rows.numel() == 0) return at::zeros({rows.size(2)}, options);
  const Element element = element_of(rows, "norm input");
  const c10::cuda::CUDAGuard guard(rows.device());
  const at::Tensor sums = at::empty({rows.size(2)}, options);
  const at::Tensor parts = at::empty(
      {weight_gradient_parts(element, arguments.rows, arguments.width), rows.size(2)}, options);
  launch_rms_norm_weight_gradient(element, arguments, sums.mutable_data_ptr<float>(),
                                  parts.mutable_data_ptr<float>(), stream_of(rows));
  return sums;
}

}  // namespace farskip::cuda
