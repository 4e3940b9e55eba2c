#include "farskip/nn/norm_gradient.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/rsqrt.h>

#include "farskip/nn/check.h"

namespace farskip {
namespace {

at::Tensor widen(const at::Tensor& x) {
  return x.scalar_type() == at::kDouble ? x : x.to(at::kFloat);
}

void check(const at::Tensor& d_y, const at::Tensor& x) {
  require_shape(d_y, x.sizes(), "norm gradient");
  require_dtype(d_y, x.scalar_type(), "norm gradient");
}

at::Tensor inverse_rms(const at::Tensor& wide, double eps) {
  return at::rsqrt(wide.square().mean(-1, /*keepdim=*/true) + eps);
}

}  // namespace

at::Tensor rms_norm_gradient(const at::Tensor& d_y, const at::Tensor& x, const at::Tensor& weight,
                             double eps) {
  check(d_y, x);
  require_shape(weight, {x.size(-1)}, "norm weight");
  const at::Tensor wide = widen(x);
  const at::Tensor scale = inverse_rms(wide, eps);
  const at::Tensor normed = wide * scale;
  const at::Tensor g = widen(d_y) * widen(weight);
  const at::Tensor along = (g * normed).mean(-1, /*keepdim=*/true);
  return (scale * (g - normed * along)).to(x.scalar_type());
}

void rms_norm_weight_gradient(const WeightGradient& gradient, const at::Tensor& d_y,
                              const at::Tensor& x, double eps) {
  check(d_y, x);
  const at::Tensor wide = widen(x);
  const at::Tensor terms = widen(d_y) * (wide * inverse_rms(wide, eps));
  gradient.take(terms.reshape({-1, x.size(-1)}).sum(0));
}

}  // namespace farskip
