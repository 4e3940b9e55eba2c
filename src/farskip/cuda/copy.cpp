#include "farskip/cuda/copy.h"

#include <cuda_runtime_api.h>

#include <vector>

#include "farskip/cuda/check.h"

namespace farskip::cuda {

void copy_beside_compute(std::span<const TensorCopy> copies) {
  std::vector<void*> to;
  std::vector<const void*> from;
  std::vector<size_t> bytes;
  for (const TensorCopy& copy : copies) {
    if (copy.to.nbytes() == 0) continue;
    to.push_back(copy.to.mutable_data_ptr());
    from.push_back(copy.from.const_data_ptr());
    bytes.push_back(copy.to.nbytes());
  }
  if (to.empty()) return;
  const cudaStream_t stream = stream_of(copies[0].to);
#if CUDART_VERSION >= 13000
  cudaMemcpyAttributes attributes{};
  attributes.srcAccessOrder = cudaMemcpySrcAccessOrderStream;
  attributes.flags = cudaMemcpyFlagPreferOverlapWithCompute;
  size_t first = 0;
  check_call(cudaMemcpyBatchAsync(to.data(), from.data(), bytes.data(), to.size(), &attributes,
                                  &first, 1, stream),
             "cudaMemcpyBatchAsync");
#else
  for (size_t i = 0; i < to.size(); ++i) {
    check_call(cudaMemcpyAsync(to[i], from[i], bytes[i], cudaMemcpyDeviceToDevice, stream),
               "cudaMemcpyAsync");
  }
#endif
}

}  // namespace farskip::cuda
