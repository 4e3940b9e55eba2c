#include "farskip/cuda/stream_gate.h"

#include <c10/cuda/CUDAStream.h>
#include <cuda.h>
#include <cuda_runtime_api.h>

#include <atomic>

#include "farskip/base/error.h"
#include "farskip/cuda/launch.h"

namespace farskip::cuda {
namespace {

using WaitValue = decltype(&cuStreamWaitValue32);

// Asked of the runtime, so that the program needs no driver library to be linked.
WaitValue find_wait_value() {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
  check_call(cudaGetDriverEntryPointByVersion("cuStreamWaitValue32", &function, 12000,
                                              cudaEnableDefault, &found),
             "cudaGetDriverEntryPointByVersion");
  if (found != cudaDriverEntryPointSuccess || function == nullptr) {
    throw UnsupportedError("the driver can not let a stream wait for a number",
                           {.where = "cuStreamWaitValue32", .hint = "update the driver"});
  }
  return reinterpret_cast<WaitValue>(function);
}

}  // namespace

struct StreamGate::State {
  State() : wait_value(find_wait_value()) {
    void* memory = nullptr;
    check_call(cudaHostAlloc(&memory, sizeof(uint32_t), cudaHostAllocMapped), "cudaHostAlloc");
    number = static_cast<uint32_t*>(memory);
    *number = 0;
    void* device_side = nullptr;
    check_call(cudaHostGetDevicePointer(&device_side, memory, 0), "cudaHostGetDevicePointer");
    address = reinterpret_cast<CUdeviceptr>(device_side);
  }
  ~State() { cudaFreeHost(number); }

  WaitValue wait_value;
  uint32_t* number = nullptr;  // pinned; the device sees it at `address`
  CUdeviceptr address = 0;
};

StreamGate::StreamGate() : state_(std::make_unique<State>()) {}
StreamGate::~StreamGate() = default;

void StreamGate::hold(const c10::Stream& stream, uint32_t value) const {
  const CUresult result = state_->wait_value(c10::cuda::CUDAStream(stream).stream(),
                                             state_->address, value, CU_STREAM_WAIT_VALUE_GEQ);
  if (result == CUDA_SUCCESS) return;
  throw Error("a stream can not be held", {.where = "cuStreamWaitValue32",
                                           .found = "CUDA driver error " + std::to_string(result)});
}

void StreamGate::raise(uint32_t value) noexcept {
  std::atomic_ref<uint32_t> number(*state_->number);
  uint32_t now = number.load();
  while (now < value && !number.compare_exchange_weak(now, value)) {
  }
}

}  // namespace farskip::cuda
