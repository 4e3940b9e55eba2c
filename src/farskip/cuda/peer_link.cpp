#include "farskip/cuda/peer_link.h"

#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <algorithm>
#include <atomic>
#include <vector>

#include "farskip/base/error.h"
#include "farskip/cuda/check.h"
#include "farskip/cuda/copy_batches.h"
#include "farskip/cuda/peer_link_kernels.h"

namespace farskip::cuda {
namespace {

// What a piece takes to cross: the last one leaves that much before its time.
constexpr double piece_seconds = 4e-6;

void let_reach(at::Device from, at::Device to) {
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

class CudaEvent {
 public:
  CudaEvent(at::Device device, unsigned flags) {
    const c10::cuda::CUDAGuard guard(device);
    check_call(cudaEventCreateWithFlags(&event_, flags), "cudaEventCreateWithFlags");
  }
  ~CudaEvent() { cudaEventDestroy(event_); }
  CudaEvent(const CudaEvent&) = delete;
  CudaEvent& operator=(const CudaEvent&) = delete;

  void record(cudaStream_t stream) const {
    check_call(cudaEventRecord(event_, stream), "cudaEventRecord");
  }
  void block(cudaStream_t stream) const {
    check_call(cudaStreamWaitEvent(stream, event_, 0), "cudaStreamWaitEvent");
  }
  // Waits for this one.
  double seconds_since(const CudaEvent& earlier) const {
    check_call(cudaEventSynchronize(event_), "cudaEventSynchronize");
    float milliseconds = 0;
    check_call(cudaEventElapsedTime(&milliseconds, earlier.event_, event_), "cudaEventElapsedTime");
    return milliseconds * 1e-3;
  }

 private:
  cudaEvent_t event_ = nullptr;
};

uint64_t nanoseconds(double seconds) {
  return static_cast<uint64_t>(std::clamp(seconds, 0.0, 1e6) * 1e9);
}

// A number in host memory that the GPUs can read.
struct PinnedFlag {
  PinnedFlag() {
    void* memory = nullptr;
    check_call(
        cudaHostAlloc(&memory, sizeof(uint32_t), cudaHostAllocMapped | cudaHostAllocPortable),
        "cudaHostAlloc");
    value = new (memory) uint32_t(0);
  }
  ~PinnedFlag() { cudaFreeHost(value); }
  PinnedFlag(const PinnedFlag&) = delete;
  PinnedFlag& operator=(const PinnedFlag&) = delete;
  uint32_t* value = nullptr;
};

}  // namespace

struct PeerLink::State {
  State(at::Device device, at::Device peer)
      : device(device),
        peer(peer),
        stream(c10::cuda::getStreamFromPool(/*isHighPriority=*/true, peer.index())),
        begun(device, cudaEventDisableTiming),
        ended(peer, cudaEventDisableTiming) {}

  const at::Device device, peer;
  const c10::cuda::CUDAStream stream;  // of the peer
  const CudaEvent begun, ended;        // recorded anew for each crossing
  const PinnedFlag released;
  double overhead_seconds = 0;  // of a crossing of nothing, from stream to stream
};

PeerLink::PeerLink(at::Device device, at::Device peer) {
  let_reach(peer, device);
  state_ = std::make_unique<State>(device, peer);
  const c10::cuda::CUDAStream stream = c10::cuda::getStreamFromPool(true, device.index());
  const CudaEvent before(device, cudaEventDefault), after(device, cudaEventDefault);
  double least = 1;
  for (int i = 0; i < 5; ++i) {
    before.record(stream.stream());
    start(stream, {}, {}, {}, 0, 0);
    join(stream);
    after.record(stream.stream());
    least = std::min(least, after.seconds_since(before));
  }
  state_->overhead_seconds = least;
}

// The peer may still be looking at the flag.
PeerLink::~PeerLink() {
  release();
  cudaStreamSynchronize(state_->stream.stream());
}

void PeerLink::start(const c10::Stream& stream, const at::Tensor& to, const at::Tensor& from,
                     std::span<const RowCopy> copies, double latency_seconds, double seconds) {
  if (!copies.empty()) require_one_device("PeerLink", {to, from});
  std::vector<CopyBatch> batches = copy_batches(to, from, copies);
  int64_t bytes = 0;
  for (const CopyBatch& batch : batches) bytes += batch.bytes();
  if (batches.empty()) batches.emplace_back();

  state_->begun.record(c10::cuda::CUDAStream(stream).stream());
  state_->begun.block(state_->stream.stream());
  const c10::cuda::CUDAGuard guard(state_->peer);
  const double first = std::max(0.0, latency_seconds - state_->overhead_seconds);
  const double span = std::max(0.0, seconds - state_->overhead_seconds - first);
  double at = first;  // each batch counts from its own start
  for (const CopyBatch& batch : batches) {
    const double share = bytes > 0 ? span * static_cast<double>(batch.bytes()) / bytes : span;
    launch_paced_copies({.batch = batch,
                         .first_ns = nanoseconds(at),
                         .last_ns = nanoseconds(std::max(at, at + share - piece_seconds)),
                         .end_ns = nanoseconds(at + share),
                         .released = state_->released.value},
                        state_->stream.stream());
    at = 0;
  }
}

void PeerLink::join(const c10::Stream& stream) {
  state_->ended.record(state_->stream.stream());
  state_->ended.block(c10::cuda::CUDAStream(stream).stream());
}

void PeerLink::release() noexcept { std::atomic_ref<uint32_t>(*state_->released.value).store(1); }

}  // namespace farskip::cuda
