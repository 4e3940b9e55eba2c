#pragma once

#include <array>
#include <map>
#include <utility>

#include "farskip/nn/router.h"
#include "farskip/runtime/expert_layout.h"
#include "farskip/runtime/kernel.h"

namespace farskip {

// What routers chose, by layer (from 1), for tokens that lie one after the other.
using RoutingRecord = std::map<int, Routing>;

struct RoutingOptions {
  bool record = false;                    // keep what routers chose
  const RoutingRecord* replay = nullptr;  // for routing mode replay: of the whole batch
  int64_t first_token = 0;                // of this rank in the whole batch
};

// What the routing kernels of one rank share: layouts of experts, and routing that comes from or
// goes to the outside. Made for one rank's executor. One thread.
class RoutingState : public KernelState {
 public:
  explicit RoutingState(RoutingOptions options = {}) : options_(options) {}

  const RoutingOptions& options() const { return options_; }
  // The layout for so many chunks, made at its first use. Stays valid.
  const ExpertLayout& layout(const Placement& placement, int chunks);
  // position_of_expert of that layout on a device, copied there at its first use. Stays valid.
  const at::Tensor& positions(const Placement& placement, int chunks, at::Device device);
  // The same for the layout's positions_by_rank and homes.
  const at::Tensor& positions_by_rank(const Placement& placement, int chunks, at::Device device);
  const ExpertHomes& homes(const Placement& placement, int chunks, at::Device device);
  // balanced_routing of these tokens on a device, computed at its first use. Stays valid.
  const Routing& balanced(int64_t tokens, int64_t experts, int64_t top_k, int64_t first_token,
                          at::Device device);
  void record(int layer, int micro_batch, Routing routing);
  // What was recorded since the last call, micro-batches one after the other; layers that had no
  // tokens are left out.
  RoutingRecord take_record();

 private:
  RoutingOptions options_;
  std::map<int, ExpertLayout> layouts_;
  std::map<int, at::Tensor> positions_, positions_by_rank_;  // by chunks
  std::map<int, ExpertHomes> homes_;                         // by chunks
  // By tokens, experts, choices and first token.
  std::map<std::array<int64_t, 4>, Routing> balanced_;
  std::map<std::pair<int, int>, Routing> record_;  // by layer and micro-batch
};

// Both tensors on `device`, as tensor_ops::to_device.
Routing to_device(const Routing& routing, at::Device device);

// What a routing kernel was given. Throws Error if the executor has no RoutingState.
RoutingState& routing_state_of(const KernelContext& context);
// The layout for the chunks of a kernel's op.
const ExpertLayout& layout_of(const KernelContext& context);

}  // namespace farskip
