#include "farskip/nn/linear.h"

#include <ATen/ops/bmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>

#include "farskip/nn/check.h"

namespace farskip {

at::Tensor linear(const at::Tensor& x, const at::Tensor& weight) {
  require_shape(x, {-1, -1}, "linear input");
  require_shape(weight, {-1, x.size(1)}, "linear weight");
  at::Tensor out = at::empty({x.size(0), weight.size(0)}, x.options());
  linear_out(out, x, weight);
  return out;
}

void linear_out(const at::Tensor& out, const at::Tensor& x, const at::Tensor& weight) {
  require_shape(x, {-1, -1}, "linear input");
  require_shape(weight, {-1, x.size(1)}, "linear weight");
  require_shape(out, {x.size(0), weight.size(0)}, "linear output");
  require_dtype(weight, x.scalar_type(), "linear weight");
  require_dtype(out, x.scalar_type(), "linear output");
  const int64_t rows = x.size(0);
  if (rows == 0) return;
  at::Tensor result = out;
  if (rows >= least_product_rows || !x.is_cpu() || x.scalar_type() != at::kFloat) {
    at::mm_out(result, x, weight.t());
    return;
  }
  at::Tensor filled = at::zeros({least_product_rows, x.size(1)}, x.options());
  filled.narrow(0, 0, rows).copy_(x);
  result.copy_(at::mm(filled, weight.t()).narrow(0, 0, rows));
}

void linear_by_head_out(const at::Tensor& out, const at::Tensor& x, const at::Tensor& weight) {
  require_shape(x, {-1, -1}, "linear input");
  require_shape(weight, {-1, -1, x.size(1)}, "linear weight");
  require_shape(out, {x.size(0), weight.size(0), weight.size(1)}, "linear output");
  require_dtype(weight, x.scalar_type(), "linear weight");
  require_dtype(out, x.scalar_type(), "linear output");
  at::Tensor by_head = out.transpose(0, 1);
  at::bmm_out(by_head, x.unsqueeze(0).expand({weight.size(0), -1, -1}), weight.transpose(1, 2));
}

}  // namespace farskip
