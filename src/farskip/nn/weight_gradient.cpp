#include "farskip/nn/weight_gradient.h"

#include <ATen/ops/addmm.h>
#include <ATen/ops/mm.h>

#include "farskip/nn/check.h"

namespace farskip {

void WeightGradient::take(const at::Tensor& contribution) const {
  require_shape(contribution, tensor.sizes(), "gradient contribution");
  at::Tensor sum = tensor;
  if (add) {
    sum.add_(contribution);
  } else {
    sum.copy_(contribution);
  }
}

void WeightGradient::take_product(const at::Tensor& a, const at::Tensor& b) const {
  require_shape(a, {-1, tensor.size(0)}, "gradient product");
  require_shape(b, {a.size(0), tensor.size(1)}, "gradient product");
  const at::Tensor transposed = a.t();
  if (tensor.scalar_type() != b.scalar_type()) return take(at::mm(transposed, b));
  at::Tensor sum = tensor;
  if (add) {
    at::addmm_out(sum, tensor, transposed, b);
  } else {
    at::mm_out(sum, transposed, b);
  }
}

}  // namespace farskip
