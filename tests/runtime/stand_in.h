#pragma once

#include <list>
#include <memory>
#include <utility>
#include <vector>

#include "farskip/comm/loopback.h"
#include "farskip/runtime/executor.h"
#include "farskip/runtime/kernels.h"
#include "farskip/runtime/routing_state.h"
#include "fixture.h"

namespace farskip::testing {

// Rank 0 of four on a GPU, its peers stood in for.
inline std::unique_ptr<Group> stand_in_group(LoopbackPath path, double bytes_per_second = 1e9) {
  return make_loopback_group(
      {.ranks = 4,
       .path = path,
       .link = {.bytes_per_second = bytes_per_second, .latency_seconds = 1e-5},
       .device = at::Device(at::kCUDA, 0),
       .deadline = std::chrono::seconds(30)});
}

inline Placement stand_in_placement(const Fixture& fixture) {
  return Placement::contiguous(fixture.config().router.experts, 4);
}

// The weights of rank 0, in host memory.
inline std::vector<Weights> stand_in_weights(const Fixture& fixture, at::ScalarType dtype) {
  const std::vector<int> here = {0};
  return load_weights(fixture.checkpoint, fixture.config(), stand_in_placement(fixture), here,
                      dtype);
}

// Steps of that rank, without a session around them.
class StandIn {
 public:
  StandIn(const Fixture& fixture, at::ScalarType dtype, double bytes_per_second = 1e9)
      : fixture_(fixture),
        group_(stand_in_group(LoopbackPath::device, bytes_per_second)),
        placement_(stand_in_placement(fixture)),
        weights_(stand_in_weights(fixture, dtype).at(0)),
        kernels_(step_kernels()) {
    for (auto& [name, tensor] : weights_) tensor = tensor.to(group_->device());
  }

  const Weights& weights() const { return weights_; }
  // What computes ops of the kind in executors that are made from now on. Returns what did before.
  Kernel replace_kernel(const Graph& graph, OpKind kind, Kernel kernel) {
    for (const Op& op : graph.ops()) {
      if (op.kind != kind) continue;
      KernelEntry entry = kernels_.find(op);
      const Kernel before = std::exchange(entry.kernel, kernel);
      kernels_.add(kind, entry);
      return before;
    }
    return nullptr;
  }
  PlannedStep plan(const TokenBatch& tokens, const StepForm& form) const {
    return fixture_.plan("farskip", 4, tokens, form);
  }
  std::unique_ptr<Executor> executor(const PlannedStep& step, ExecutorOptions options = {}) {
    options.state = &states_.emplace_back();
    return std::make_unique<Executor>(fixture_.config(), placement_, step.graph, kernels_, weights_,
                                      *group_, options);
  }

 private:
  const Fixture& fixture_;
  const std::unique_ptr<Group> group_;
  const Placement placement_;
  Weights weights_;
  KernelTable kernels_;
  std::list<RoutingState> states_;
};

}  // namespace farskip::testing
