#pragma once

#include "farskip/cuda/launch.h"

namespace farskip::cuda {

// out [rows, width] = silu(gate) * up, gate_up [rows, 2 width]; both dense.
void launch_silu_multiply(Element element, void* out, const void* gate_up, int64_t rows,
                          int64_t width, cudaStream_t stream);

}  // namespace farskip::cuda
