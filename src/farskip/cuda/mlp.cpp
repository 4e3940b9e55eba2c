#include "farskip/cuda/mlp.h"

#include <c10/cuda/CUDAGuard.h>

#include "farskip/base/error.h"
#include "farskip/cuda/check.h"
#include "farskip/cuda/mlp_kernels.h"

namespace farskip::cuda {

void silu_multiply_out(const at::Tensor& out, const at::Tensor& gate_up,
                       const at::Tensor& row_count) {
  require_on_gpu(out, {-1, -1}, "silu output");
  const int64_t rows = out.size(0), width = out.size(1);
  require_on_gpu(gate_up, {rows, 2 * width}, out.scalar_type(), "silu input");
  require_one_device("silu_multiply", {out, gate_up});
  require_contiguous(out, "silu output");
  require_contiguous(gate_up, "silu input");
  const Element element = element_of(out, "silu output");
  require_few_packs(rows, width, element, "silu output");
  if (row_count.defined()) {
    require_on_gpu(row_count, {1}, at::kInt, "silu row count");
    require_one_device("silu_multiply", {out, row_count});
  }
  if (out.numel() == 0) return;
  const c10::cuda::CUDAGuard guard(out.device());
  launch_silu_multiply(
      element,
      {.out = out.mutable_data_ptr(),
       .gate_up = gate_up.const_data_ptr(),
       .rows = rows,
       .width = width,
       .row_count = row_count.defined() ? row_count.const_data_ptr<int32_t>() : nullptr},
      stream_of(out));
}

void silu_multiply_gradient_out(const at::Tensor& deltas, const at::Tensor& activated,
                                const at::Tensor& d_activated, const at::Tensor& gate_up) {
  require_on_gpu(d_activated, {-1, -1}, "silu gradient");
  const int64_t rows = d_activated.size(0), width = d_activated.size(1);
  const at::ScalarType dtype = d_activated.scalar_type();
  require_on_gpu(gate_up, {rows, 2 * width}, dtype, "silu input");
  require_on_gpu(deltas, {rows, 2 * width}, dtype, "silu input gradient");
  require_on_gpu(activated, {rows, width}, dtype, "silu output");
  require_one_device("silu_multiply_gradient", {d_activated, gate_up, deltas, activated});
  for (const at::Tensor& tensor : {d_activated, gate_up, deltas, activated}) {
    require_contiguous(tensor, "silu gradient");
  }
  const Element element = element_of(d_activated, "silu gradient");
  require_few_packs(rows, width, element, "silu gradient");
  if (d_activated.numel() == 0) return;
  const c10::cuda::CUDAGuard guard(d_activated.device());
  launch_silu_multiply_gradient(element,
                                {.deltas = deltas.mutable_data_ptr(),
                                 .activated = activated.mutable_data_ptr(),
                                 .d_activated = d_activated.const_data_ptr(),
                                 .gate_up = gate_up.const_data_ptr(),
                                 .rows = rows,
                                 .width = width},
                                stream_of(d_activated));
}

}  // namespace farskip::cuda
