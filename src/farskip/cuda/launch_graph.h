#pragma once

#include <c10/core/Device.h>
#include <c10/core/Stream.h>

#include <functional>
#include <memory>

namespace farskip::cuda {

// What was queued on a stream of a GPU once, to be queued again by one call: kernels at the same
// addresses and of the same sizes. Made in a build without CUDA: UnsupportedError.
// Thread rule: one thread.
class LaunchGraph {
 public:
  // Records what `queue` queues on `stream`, which is the calling thread's current one; nothing
  // runs. `queue` must not wait for the device. Throws what `queue` throws, and Error if the driver
  // can not record it.
  LaunchGraph(const c10::Stream& stream, const std::function<void()>& queue);
  ~LaunchGraph();
  LaunchGraph(LaunchGraph&&) noexcept;
  LaunchGraph& operator=(LaunchGraph&&) noexcept;

  // The host does not wait. Throws Error if the launch fails.
  void launch(const c10::Stream& stream) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// While a graph is recorded: `event`, CUDA's handle of one that was recorded before, is recorded
// anew each time that the graph gets there.
void record_event_in_graph(void* event, const c10::Stream& stream);

// Memory of one GPU that is given out for one purpose only, such as what a LaunchGraph writes. What
// is freed is used again for the same purpose and goes back to the device with this.
// Thread rule: one thread. Made in a build without CUDA: UnsupportedError.
class PrivateMemory {
 public:
  explicit PrivateMemory(at::Device device);
  ~PrivateMemory();
  PrivateMemory(const PrivateMemory&) = delete;
  PrivateMemory& operator=(const PrivateMemory&) = delete;

  // Gives back to the device what libtorch keeps for later, which it can not do itself while
  // private memory is given out. Waits for the device. Returns the bytes that the device has free.
  int64_t make_room() const;

  // While it lives, what is allocated for `stream` comes from there. One at a time. Libtorch marks
  // no memory that any thread frees meanwhile as used on a stream, as it otherwise does by events,
  // until it is over.
  class Use {
   public:
    Use(const PrivateMemory& memory, const c10::Stream& stream);
    ~Use();
    Use(const Use&) = delete;
    Use& operator=(const Use&) = delete;

   private:
    const PrivateMemory& memory_;
  };

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace farskip::cuda
