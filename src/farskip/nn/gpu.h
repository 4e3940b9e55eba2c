#pragma once

#include <ATen/core/Tensor.h>

#include "farskip/cuda/device.h"

namespace farskip {

// Whether the hand-written CUDA kernels take this tensor; on other devices and dtypes the ATen
// operators of tensor_ops.h do.
inline bool has_gpu_kernels(const at::Tensor& x) {
  return cuda_is_built() && x.is_cuda() &&
         (x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16);
}

}  // namespace farskip
