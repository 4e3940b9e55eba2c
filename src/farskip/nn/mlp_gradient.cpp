#include "farskip/nn/mlp_gradient.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/silu_backward.h>

#include "farskip/cuda/mlp.h"
#include "farskip/nn/check.h"
#include "farskip/nn/gpu.h"
#include "farskip/nn/mlp.h"

namespace farskip {

SiluGradient silu_multiply_gradient(const at::Tensor& d_activated, const at::Tensor& products) {
  require_shape(d_activated, {-1, -1}, "silu gradient");
  const int64_t width = d_activated.size(1);
  require_shape(products, {d_activated.size(0), 2 * width}, "silu input");
  SiluGradient result{at::empty_like(products), at::empty_like(d_activated)};
  if (products.numel() == 0) return result;
  if (has_gpu_kernels(products) && products.is_contiguous() && d_activated.is_contiguous()) {
    cuda::silu_multiply_gradient_out(result.deltas, result.activated, d_activated, products);
    return result;
  }
  silu_multiply_out(result.activated, products);
  const at::Tensor gate = products.narrow(1, 0, width), up = products.narrow(1, width, width);
  result.deltas.narrow(1, 0, width).copy_(at::silu_backward(d_activated * up, gate));
  result.deltas.narrow(1, width, width).copy_(at::silu(gate).mul_(d_activated));
  return result;
}

MlpGradient swiglu_gradient(const at::Tensor& d_out, const at::Tensor& products,
                            const at::Tensor& gate_up, const at::Tensor& down) {
  require_shape(down, {-1, -1}, "mlp down");
  require_shape(d_out, {-1, down.size(0)}, "mlp gradient");
  require_shape(gate_up, {2 * down.size(1), -1}, "mlp gate_up");
  SiluGradient silu = silu_multiply_gradient(at::mm(d_out, down), products);
  return {.rows = at::mm(silu.deltas, gate_up),
          .deltas = std::move(silu.deltas),
          .activated = std::move(silu.activated)};
}

}  // namespace farskip
