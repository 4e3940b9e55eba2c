#pragma once

#include <cuda_bf16.h>

namespace farskip::cuda {

// silu, and the logistic function, for a result of the second argument's type. The fast forms err
// by some 2^-21, which is nothing beside the rounding to bf16; the exact ones would keep kernels
// from reaching the memory's rate.
__device__ __forceinline__ float silu(float x, float) { return x / (1.0f + expf(-x)); }
__device__ __forceinline__ float silu(float x, __nv_bfloat16) {
  return __fdividef(x, 1.0f + __expf(-x));
}

__device__ __forceinline__ float logistic(float x, float) { return 1.0f / (1.0f + expf(-x)); }
__device__ __forceinline__ float logistic(float x, __nv_bfloat16) {
  return __fdividef(1.0f, 1.0f + __expf(-x));
}

}  // namespace farskip::cuda
