#pragma once

#include <ATen/core/Tensor.h>

namespace farskip::cuda {

// out = silu(gate) * up on a GPU, silu rounded to the dtype before it is multiplied; gate_up
// [rows, 2S] holds gate in its first S columns and up in the rest, out [rows, S]. Both contiguous,
// fp32 or bf16, on one device. The kernel goes to the calling thread's current stream of that
// device; the host does not wait. `row_count`: int32 [1] on that device, how many rows are
// there: `out` stays as it is behind them; undefined: all. Throws Error if shapes, dtypes or
// devices do not fit, UnsupportedError for other dtypes, for more than 16 GiB, and in builds
// without CUDA.
void silu_multiply_out(const at::Tensor& out, const at::Tensor& gate_up,
                       const at::Tensor& row_count = {});

// Its gradient by gate_up, deltas [rows, 2S], from the one by its output, d_activated [rows, S], in
// one pass; and the output once more, activated [rows, S]. All contiguous, of one dtype.
void silu_multiply_gradient_out(const at::Tensor& deltas, const at::Tensor& activated,
                                const at::Tensor& d_activated, const at::Tensor& gate_up);

}  // namespace farskip::cuda
