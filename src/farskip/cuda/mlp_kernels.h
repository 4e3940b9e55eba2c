#pragma once

#include "farskip/cuda/launch.h"

namespace farskip::cuda {

// silu(gate) * up; all dense.
struct SiluArguments {
  void* out;            // [rows, width]
  const void* gate_up;  // [rows, 2 width]
  int64_t rows, width;
  const int32_t* row_count;  // on the device: rows behind so many are left out; null: none
};

void launch_silu_multiply(Element element, const SiluArguments& arguments, cudaStream_t stream);

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
