#pragma once

#include <ATen/core/Tensor.h>

#include <span>

namespace farskip::cuda {

struct TensorCopy {
  at::Tensor to,
      from;  // contiguous, of as many bytes, on one GPU; copies must not depend on others
};

// Queues the copies on the current stream, so that they run beside large kernels and hardly slow
// them. CUDA's own copies within a device are kernels that fill it and so wait for others to end;
// this one has blocks of one warp, 32 registers a thread and no shared memory, two a
// multiprocessor, which fit beside a GEMM that leaves a little. The host does not wait. Throws
// Error if tensors do not fit or the launch fails, UnsupportedError in a build without CUDA.
void copy_beside_compute(std::span<const TensorCopy> copies);

// Lets the two GPUs reach each other's memory. Throws UnsupportedError if they can not.
void connect_devices(at::Device a, at::Device b);

// Queues a copy between tensors of two connected GPUs on the calling thread's current stream of
// `device`, one of them: copy engines carry it out. Contiguous, of as many bytes.
void copy_between_devices(const at::Tensor& to, const at::Tensor& from, at::Device device);

}  // namespace farskip::cuda
