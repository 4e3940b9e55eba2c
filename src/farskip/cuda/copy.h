#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>

namespace farskip::cuda {

// Rows [from, from + rows) of one tensor to rows [to, to + rows) of another.
struct RowCopy {
  int64_t to = 0, from = 0, rows = 0;
};

// Queues copies of rows between contiguous tensors of one GPU, with rows of as many bytes, on the
// calling thread's current stream of that GPU, so that they run beside large kernels and hardly
// slow them. CUDA's own copies within a device are kernels that fill it and so wait for others to
// end; this one has blocks of one warp, 32 registers a thread and no shared memory, two a
// multiprocessor. Copies must not depend on each other. The host does not wait. Throws Error if
// tensors or rows do not fit or the launch fails, UnsupportedError in a build without CUDA.
void copy_rows_beside_compute(const at::Tensor& to, const at::Tensor& from,
                              std::span<const RowCopy> copies);

}  // namespace farskip::cuda
