#include "farskip/cuda/stream_gate.h"

#include <c10/cuda/CUDAStream.h>
#include <cuda.h>
#include <cuda_runtime_api.h>

#include <atomic>
#include <string>

#include "farskip/base/error.h"
#include "farskip/cuda/launch.h"

namespace farskip::cuda {
namespace {

// Asked of the runtime, so that the program needs no driver library to be linked.
template <typename Function>
Function driver_function(const char* name) {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
  check_call(cudaGetDriverEntryPointByVersion(name, &function, 12000, cudaEnableDefault, &found),
             "cudaGetDriverEntryPointByVersion");
  if (found != cudaDriverEntryPointSuccess || function == nullptr) {
    throw UnsupportedError("the driver can not let a stream wait for a number",
                           {.where = name, .hint = "update the driver"});
  }
  return reinterpret_cast<Function>(function);
}

void check_driver(CUresult result, const char* name) {
  if (result == CUDA_SUCCESS) return;
  throw Error("a stream can not be paced",
              {.where = name, .found = "CUDA driver error " + std::to_string(result)});
}

// The two numbers lie a cache line apart.
struct Numbers {
  alignas(128) uint32_t raised = 0;
  alignas(128) uint32_t announced = 0;
};

}  // namespace

struct StreamGate::State {
  State() {
    void* memory = nullptr;
    check_call(cudaHostAlloc(&memory, sizeof(Numbers), cudaHostAllocMapped), "cudaHostAlloc");
    numbers = new (memory) Numbers;
    void* device_side = nullptr;
    check_call(cudaHostGetDevicePointer(&device_side, memory, 0), "cudaHostGetDevicePointer");
    const auto address = reinterpret_cast<CUdeviceptr>(device_side);
    raised = address + offsetof(Numbers, raised);
    announced = address + offsetof(Numbers, announced);
  }
  ~State() { cudaFreeHost(numbers); }

  const decltype(&cuStreamWaitValue32) wait_value =
      driver_function<decltype(&cuStreamWaitValue32)>("cuStreamWaitValue32");
  const decltype(&cuStreamWriteValue32) write_value =
      driver_function<decltype(&cuStreamWriteValue32)>("cuStreamWriteValue32");
  Numbers* numbers = nullptr;  // pinned
  CUdeviceptr raised = 0, announced = 0;
};

StreamGate::StreamGate() : state_(std::make_unique<State>()) {}
StreamGate::~StreamGate() = default;

void StreamGate::hold(const c10::Stream& stream, uint32_t value) const {
  check_driver(state_->wait_value(c10::cuda::CUDAStream(stream).stream(), state_->raised, value,
                                  CU_STREAM_WAIT_VALUE_GEQ),
               "cuStreamWaitValue32");
}

void StreamGate::raise(uint32_t value) noexcept {
  std::atomic_ref<uint32_t> number(state_->numbers->raised);
  uint32_t now = number.load();
  while (now < value && !number.compare_exchange_weak(now, value)) {
  }
}

void StreamGate::announce(const c10::Stream& stream, uint32_t value) const {
  check_driver(state_->write_value(c10::cuda::CUDAStream(stream).stream(), state_->announced, value,
                                   CU_STREAM_WRITE_VALUE_DEFAULT),
               "cuStreamWriteValue32");
}

uint32_t StreamGate::announced() const noexcept {
  return std::atomic_ref<uint32_t>(state_->numbers->announced).load();
}

}  // namespace farskip::cuda
