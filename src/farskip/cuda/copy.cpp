#include "farskip/cuda/copy.h"

#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <string>
#include <utility>

#include "farskip/base/error.h"
#include "farskip/cuda/check.h"
#include "farskip/cuda/copy_kernels.h"

namespace farskip::cuda {

void copy_beside_compute(std::span<const TensorCopy> copies) {
  CopyBatch batch;
  const auto flush = [&] {
    if (batch.count == 0) return;
    const c10::cuda::CUDAGuard guard(copies[0].to.device());
    launch_copies(batch, stream_of(copies[0].to));
    batch = {};
  };
  for (const TensorCopy& copy : copies) {
    require_on_gpu(copy.to, copy.from.sizes(), copy.from.scalar_type(), "copy target");
    require_contiguous(copy.to, "copy target");
    require_contiguous(copy.from, "copy source");
    require_one_device("copy_beside_compute", {copies[0].to, copy.to, copy.from});
    if (copy.to.nbytes() == 0) continue;
    batch.copies[batch.count++] = {.to = static_cast<char*>(copy.to.mutable_data_ptr()),
                                   .from = static_cast<const char*>(copy.from.const_data_ptr()),
                                   .bytes = static_cast<int64_t>(copy.to.nbytes())};
    if (batch.count == max_copies) flush();
  }
  flush();
}

void connect_devices(at::Device a, at::Device b) {
  for (const auto& [from, to] : {std::pair(a, b), std::pair(b, a)}) {
    int reachable = 0;
    check_call(cudaDeviceCanAccessPeer(&reachable, from.index(), to.index()),
               "cudaDeviceCanAccessPeer");
    if (!reachable) {
      throw UnsupportedError(
          "GPUs can not reach each other's memory",
          {.expected = "NVLink or a common bus", .found = from.str() + " and " + to.str()});
    }
    const c10::cuda::CUDAGuard guard(from);
    const cudaError_t status = cudaDeviceEnablePeerAccess(to.index(), 0);
    if (status == cudaErrorPeerAccessAlreadyEnabled) {
      cudaGetLastError();  // a later launch must not find it
    } else {
      check_call(status, "cudaDeviceEnablePeerAccess");
    }
  }
}

void copy_between_devices(const at::Tensor& to, const at::Tensor& from, at::Device device) {
  require_contiguous(to, "copy target");
  require_contiguous(from, "copy source");
  if (to.nbytes() != from.nbytes() || (to.device() != device && from.device() != device)) {
    throw Error("tensors do not fit a copy between devices",
                {.expected = std::to_string(from.nbytes()) + " bytes, one end on " + device.str(),
                 .found = std::to_string(to.nbytes()) + " bytes, from " + from.device().str() +
                          " to " + to.device().str()});
  }
  if (to.nbytes() == 0) return;
  const c10::cuda::CUDAGuard guard(device);
  check_call(cudaMemcpyPeerAsync(to.mutable_data_ptr(), to.device().index(), from.const_data_ptr(),
                                 from.device().index(), to.nbytes(),
                                 c10::cuda::getCurrentCUDAStream(device.index()).stream()),
             "cudaMemcpyPeerAsync");
}

}  // namespace farskip::cuda
