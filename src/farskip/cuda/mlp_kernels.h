#pragma once

#include "farskip/cuda/launch.h"

namespace farskip::cuda {

// out [rows, width] = silu(gate) * up, gate_up [rows, 2 width]; both dense.
void launch_silu_multiply(Element element, void* out, const void* gate_up, int64_t rows,
                          int64_t width, cudaStream_t stream);

// Its gradient, and out itself once more. All dense.
struct SiluGradientArguments {
  void* deltas;             // [rows, 2 width]: by gate_up
  void* activated;          // [rows, width]
  const void* d_activated;  // [rows, width]
  const void* gate_up;      // [rows, 2 width]
  int64_t rows, width;
};

void launch_silu_multiply_gradient(Element element, const SiluGradientArguments& arguments,
                                   cudaStream_t stream);

}  // namespace farskip::cuda
