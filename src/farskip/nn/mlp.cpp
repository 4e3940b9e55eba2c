#include "farskip/nn/mlp.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/silu.h>

#include "farskip/cuda/expert_product.h"
#include "farskip/cuda/mlp.h"
#include "farskip/nn/check.h"
#include "farskip/nn/gpu.h"
#include "farskip/nn/linear.h"

namespace farskip {

void silu_multiply_out(const at::Tensor& out, const at::Tensor& gate_up,
                       const at::Tensor& row_count) {
  require_shape(out, {-1, -1}, "silu output");
  const int64_t width = out.size(1);
  require_shape(gate_up, {out.size(0), 2 * width}, "silu input");
  if (out.numel() == 0) return;
  if (has_gpu_kernels(out) && out.is_contiguous() && gate_up.is_contiguous()) {
    return cuda::silu_multiply_out(out, gate_up, row_count);
  }
  at::Tensor result = out;
  // gate is a strided view, so the operator goes row by row and every row gets the same treatment.
  at::silu_out(result, gate_up.narrow(1, 0, width));
  result.mul_(gate_up.narrow(1, width, width));
}

at::Tensor swiglu(const at::Tensor& x, const at::Tensor& gate_up, const at::Tensor& down) {
  require_shape(x, {-1, -1}, "mlp input");
  require_shape(down, {-1, -1}, "mlp down");
  at::Tensor out = at::empty({x.size(0), down.size(0)}, x.options());
  swiglu_out(out, x, gate_up, down);
  return out;
}

void swiglu_out(const at::Tensor& out, const at::Tensor& x, const at::Tensor& gate_up,
                const at::Tensor& down) {
  require_shape(gate_up, {-1, -1}, "mlp gate_up");
  require_shape(down, {-1, -1}, "mlp down");
  if (cuda::has_expert_product(x, gate_up) && cuda::fills_gpu(x, gate_up) &&
      down.size(1) % 8 == 0) {
    const at::Tensor activated = at::empty({x.size(0), down.size(1)}, x.options());
    cuda::expert_swiglu_out(activated, x, gate_up.unsqueeze(0), {});
    return linear_out(out, activated, down);
  }
  const at::Tensor products = at::empty({x.size(0), gate_up.size(0)}, x.options());
  swiglu_saving_out(out, products, x, gate_up, down);
}

void swiglu_saving_out(const at::Tensor& out, const at::Tensor& products, const at::Tensor& x,
                       const at::Tensor& gate_up, const at::Tensor& down) {
  require_shape(down, {-1, -1}, "mlp down");
  require_shape(gate_up, {2 * down.size(1), -1}, "mlp gate_up");
  linear_out(products, x, gate_up);
  const at::Tensor activated = at::empty({x.size(0), down.size(1)}, x.options());
  silu_multiply_out(activated, products);
  linear_out(out, activated, down);
}

}  // namespace farskip
