#include "farskip/cuda/mlp.h"

#include <c10/cuda/CUDAGuard.h>

#include "farskip/base/error.h"
#include "farskip/cuda/check.h"
#include "farskip/cuda/mlp_kernels.h"

namespace farskip::cuda {

void silu_multiply_out(const at::Tensor& out, const at::Tensor& gate_up) {
  require_on_gpu(out, {-1, -1}, "silu output");
  const int64_t rows = out.size(0), width = out.size(1);
  require_on_gpu(gate_up, {rows, 2 * width}, out.scalar_type(), "silu input");
  require_one_device("silu_multiply", {out, gate_up});
  require_contiguous(out, "silu output");
  require_contiguous(gate_up, "silu input");
  const Element element = element_of(out, "silu output");
  require_few_packs(rows, width, element, "silu output");
  if (out.numel() == 0) return;
  const c10::cuda::CUDAGuard guard(out.device());
  launch_silu_multiply(element, out.mutable_data_ptr(), gate_up.const_data_ptr(), rows, width,
                       stream_of(out));
}

}  // namespace farskip::cuda
