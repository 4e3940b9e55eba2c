#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstdint>

namespace farskip::cuda {

inline constexpr int logits_width_step = 64;  // a row's width must be a multiple

struct RouterLogitsArguments {
  const __nv_bfloat16* x;       // [tokens, width], rows `x_stride` apart
  const __nv_bfloat16* weight;  // [experts, width]
  float* out;                   // [tokens, experts]
  int64_t x_stride, tokens;
  int experts, width;
};

// out = x weight^T with exact products, summed in fp32 in an order that follows from the width
// alone. Rows of both factors begin at multiples of 16 bytes. Throws Error if the launch fails.
void launch_router_logits(const RouterLogitsArguments& arguments, cudaStream_t stream);

}  // namespace farskip::cuda
