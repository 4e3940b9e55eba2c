#pragma once

#include "farskip/cuda/launch.h"

namespace farskip::cuda {

// What a block multiplies at once: so many rows with so many of a matrix.
inline constexpr int tile_rows = 128, tile_columns = 256;

// Rows of several experts, each times its expert's matrix; all bf16, dense, and aligned to 16
// bytes.
struct ExpertProductArguments {
  void* out;             // [rows, width]
  const void* in;        // [rows / choices, depth]
  const void* matrices;  // [experts, width, depth]; with a SwiGLU [experts, 2 width, depth]
  const int32_t* ends;   // [experts] on the device: behind an expert's last row; null: all of one
  // On the device, [rows], or null for 0, 1, 2 ...: where an expert's rows go in `out`, or, with a
  // SwiGLU, `choices` times the row of `in` that they are.
  const int64_t* order;
  int* drawn;  // on the device, 0: for the launch to count tiles with
  int64_t rows;
  int choices;
  int experts, depth, width;  // depth and width: multiples of 8
  int multiprocessors;        // to take, two or more
};

// Whether the current device has the matrix units that these are written for.
bool has_expert_product_kernels();

// out = in matrix^T of each expert. Rows behind the last end are left as they are.
void launch_expert_product(const ExpertProductArguments& arguments, cudaStream_t stream);

// out = silu(gate) * up, of the products with an expert's gate rows and up rows, each rounded.
void launch_expert_swiglu(const ExpertProductArguments& arguments, cudaStream_t stream);

}  // namespace farskip::cuda
