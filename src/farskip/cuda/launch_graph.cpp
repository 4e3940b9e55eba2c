#include "farskip/cuda/launch_graph.h"

#include <ATen/cuda/MemPool.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>

#include <utility>

#include "farskip/cuda/launch.h"

namespace farskip::cuda {
namespace {

cudaStream_t raw(const c10::Stream& stream) { return c10::cuda::CUDAStream(stream).stream(); }

struct Recorded {
  // To destroy none is an error, which the next launch would find.
  ~Recorded() {
    if (graph != nullptr) cudaGraphDestroy(graph);
  }
  cudaGraph_t graph = nullptr;
};

// Other threads go on as they like, and libtorch's allocator may ask for memory meanwhile.
void record(cudaStream_t stream, const std::function<void()>& queue, Recorded& recorded) {
  check_call(cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed),
             "cudaStreamBeginCapture");
  try {
    queue();
  } catch (...) {
    cudaStreamEndCapture(stream, &recorded.graph);
    cudaGetLastError();  // a later launch must not find it
    throw;
  }
  check_call(cudaStreamEndCapture(stream, &recorded.graph), "cudaStreamEndCapture");
}

}  // namespace

struct LaunchGraph::State {
  ~State() {
    if (executable != nullptr) cudaGraphExecDestroy(executable);
  }
  cudaGraphExec_t executable = nullptr;
};

LaunchGraph::LaunchGraph(const c10::Stream& stream, const std::function<void()>& queue)
    : state_(std::make_unique<State>()) {
  const c10::cuda::CUDAGuard guard(stream.device());
  Recorded recorded;
  record(raw(stream), queue, recorded);
  check_call(cudaGraphInstantiate(&state_->executable, recorded.graph, 0), "cudaGraphInstantiate");
}

LaunchGraph::~LaunchGraph() = default;
LaunchGraph::LaunchGraph(LaunchGraph&&) noexcept = default;
LaunchGraph& LaunchGraph::operator=(LaunchGraph&&) noexcept = default;

void LaunchGraph::launch(const c10::Stream& stream) const {
  check_call(cudaGraphLaunch(state_->executable, raw(stream)), "cudaGraphLaunch");
}

void record_event_in_graph(void* event, const c10::Stream& stream) {
  check_call(cudaEventRecordWithFlags(static_cast<cudaEvent_t>(event), raw(stream),
                                      cudaEventRecordExternal),
             "cudaEventRecordWithFlags");
}

struct PrivateMemory::State {
  explicit State(at::Device device) : device(device) {}
  const at::Device device;
  at::cuda::MemPool pool;
};

PrivateMemory::PrivateMemory(at::Device device) : state_(std::make_unique<State>(device)) {}

int64_t PrivateMemory::make_room() const {
  const c10::cuda::CUDAGuard guard(state_->device);
  c10::cuda::CUDACachingAllocator::emptyCache();
  size_t free = 0, all = 0;
  check_call(cudaMemGetInfo(&free, &all), "cudaMemGetInfo");
  return static_cast<int64_t>(free);
}

PrivateMemory::~PrivateMemory() = default;

PrivateMemory::Use::Use(const PrivateMemory& memory, const c10::Stream& stream) : memory_(memory) {
  c10::cuda::CUDACachingAllocator::beginAllocateToPool(
      memory.state_->device.index(), memory.state_->pool.id(),
      [stream = raw(stream)](cudaStream_t asking) { return asking == stream; });
}

PrivateMemory::Use::~Use() {
  const c10::DeviceIndex device = memory_.state_->device.index();
  const auto id = memory_.state_->pool.id();
  c10::cuda::CUDACachingAllocator::endAllocateToPool(device, id);
  c10::cuda::CUDACachingAllocator::releasePool(device, id);
}

}  // namespace farskip::cuda
