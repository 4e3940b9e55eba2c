#include "farskip/nn/norm_gradient.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/rsqrt.h>

#include "farskip/cuda/norm_gradient.h"
#include "farskip/nn/check.h"
#include "farskip/nn/gpu.h"

namespace farskip {
namespace {

at::Tensor widen(const at::Tensor& x) {
  return x.scalar_type() == at::kDouble ? x : x.to(at::kFloat);
}

void check(const at::Tensor& d_y, const at::Tensor& x) {
  require_shape(d_y, x.sizes(), "norm gradient");
  require_dtype(d_y, x.scalar_type(), "norm gradient");
}

bool has_kernel(const at::Tensor& x) {
  constexpr int64_t widest = 8192;  // that the kernels take in every dtype
  return has_gpu_kernels(x) && x.size(-1) <= widest;
}

at::Tensor inverse_rms(const at::Tensor& wide, double eps) {
  return at::rsqrt(wide.square().mean(-1, /*keepdim=*/true) + eps);
}

}  // namespace

void rms_norm_gradient_out(const at::Tensor& out, const at::Tensor& d_y, const at::Tensor& x,
                           const at::Tensor& weight, double eps) {
  check(d_y, x);
  check(out, x);
  require_shape(weight, {x.size(-1)}, "norm weight");
  if (has_kernel(x)) return cuda::rms_norm_gradient_out(out, d_y, x, weight, eps);
  const at::Tensor wide = widen(x);
  const at::Tensor scale = inverse_rms(wide, eps);
  const at::Tensor normed = wide * scale;
  const at::Tensor g = widen(d_y) * widen(weight);
  const at::Tensor along = (g * normed).mean(-1, /*keepdim=*/true);
  at::Tensor(out).copy_(scale * (g - normed * along));
}

void rms_norm_weight_gradient(const WeightGradient& gradient, const at::Tensor& d_y,
                              const at::Tensor& x, double eps) {
  check(d_y, x);
  if (has_kernel(x)) return gradient.take(cuda::rms_norm_weight_gradient(d_y, x, eps));
  const at::Tensor wide = widen(x);
  const at::Tensor terms = widen(d_y) * (wide * inverse_rms(wide, eps));
  gradient.take(terms.reshape({-1, x.size(-1)}).sum(0));
}

}  // namespace farskip
