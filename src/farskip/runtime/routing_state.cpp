#include "farskip/runtime/routing_state.h"

#include <ATen/ops/cat.h>

#include <utility>

namespace farskip {

const ExpertLayout& RoutingState::layout(const Placement& placement, int chunks) {
  return layouts_.try_emplace(chunks, placement, chunks).first->second;
}

const at::Tensor& RoutingState::positions(const Placement& placement, int chunks,
                                          at::Device device) {
  const at::Tensor& host = layout(placement, chunks).position_of_expert();
  at::Tensor& copy = positions_[chunks];
  if (!copy.defined() || copy.device() != device) copy = host.to(device);
  return copy;
}

void RoutingState::record(int layer, int micro_batch, Routing routing) {
  record_[{layer, micro_batch}] = std::move(routing);
}

RoutingRecord RoutingState::take_record() {
  RoutingRecord whole;
  for (auto& [key, routing] : std::exchange(record_, {})) {
    const auto [entry, first] = whole.try_emplace(key.first, routing);
    if (first) continue;
    entry->second = {at::cat({entry->second.experts, routing.experts}),
                     at::cat({entry->second.weights, routing.weights})};
  }
  return whole;
}

}  // namespace farskip
