#include "farskip/nn/norm.h"

#include <ATen/Dispatch.h>
#include <ATen/OpMathType.h>
#include <ATen/ops/empty.h>

#include <array>
#include <cmath>

#include "farskip/cuda/norm.h"
#include "farskip/nn/check.h"
#include "farskip/nn/gpu.h"
#include "farskip/nn/tensor_ops.h"

namespace farskip {
namespace {

// Partial sums in a fixed number of lanes: the compiler vectorises them, and the order of summation
// depends on the width alone.
template <typename scalar_t, typename real>
real sum_of_squares(const scalar_t* x, int64_t width) {
  constexpr int lanes = 16;
  std::array<real, lanes> partial{};
  int64_t i = 0;
  for (; i + lanes <= width; i += lanes) {
    for (int lane = 0; lane < lanes; ++lane) {
      const real value = static_cast<real>(x[i + lane]);
      partial[lane] += value * value;
    }
  }
  for (int lane = 0; i < width; ++i, ++lane) {
    const real value = static_cast<real>(x[i]);
    partial[lane] += value * value;
  }
  for (int half = lanes / 2; half > 0; half /= 2) {
    for (int lane = 0; lane < half; ++lane) partial[lane] += partial[lane + half];
  }
  return partial[0];
}

template <typename scalar_t>
void normalize_row(scalar_t* out, const scalar_t* x, const scalar_t* weight, int64_t width,
                   double eps) {
  using real = at::opmath_type<scalar_t>;
  const real mean = sum_of_squares<scalar_t, real>(x, width) / static_cast<real>(width);
  const real scale = real(1) / std::sqrt(mean + static_cast<real>(eps));
  for (int64_t i = 0; i < width; ++i) {
    const scalar_t normalized = static_cast<scalar_t>(static_cast<real>(x[i]) * scale);
    out[i] = normalized * weight[i];
  }
}

}  // namespace

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  at::Tensor out = at::empty(x.sizes(), x.options());
  rms_norm_out(out, x, weight, eps);
  return out;
}

void rms_norm_out(const at::Tensor& out, const at::Tensor& x, const at::Tensor& weight,
                  double eps) {
  if (x.dim() == 2) {
    return rms_norm_out(out.unsqueeze(1), x.unsqueeze(1), weight, eps);
  }
  require_shape(x, {-1, -1, -1}, "rms_norm input");
  require_shape(out, x.sizes(), "rms_norm output");
  require_shape(weight, {x.size(2)}, "rms_norm weight");
  require_dtype(out, x.scalar_type(), "rms_norm output");
  require_dtype(weight, x.scalar_type(), "rms_norm weight");
  require_dense_rows(x, "rms_norm input");
  require_dense_rows(out, "rms_norm output");
  if (x.numel() == 0) return;
  constexpr int64_t widest = 8192;  // that the kernel takes in every dtype
  if (has_gpu_kernels(x) && x.size(2) <= widest) return cuda::rms_norm_out(out, x, weight, eps);
  if (!x.is_cpu()) {
    out.copy_(tensor_ops::rms_norm(x, weight, eps));
    return;
  }
  const at::Tensor dense_weight = weight.contiguous();
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kBFloat16, at::kHalf, x.scalar_type(), "rms_norm", [&] {
    for (int64_t row = 0; row < x.size(0); ++row) {
      for (int64_t head = 0; head < x.size(1); ++head) {
        normalize_row<scalar_t>(
            out.mutable_data_ptr<scalar_t>() + row * out.stride(0) + head * out.stride(1),
            x.const_data_ptr<scalar_t>() + row * x.stride(0) + head * x.stride(1),
            dense_weight.const_data_ptr<scalar_t>(), x.size(2), eps);
      }
    }
  });
}

}  // namespace farskip
