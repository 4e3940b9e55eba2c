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

const Routing& RoutingState::balanced(int64_t tokens, int64_t experts, int64_t top_k,
                                      int64_t first_token, at::Device device) {
  Routing& routing = balanced_[{tokens, experts, top_k, first_token}];
  if (!routing.experts.defined() || routing.experts.device() != device) {
    routing = balanced_routing(tokens, experts, top_k, first_token * top_k);
    routing = {routing.experts.to(device), routing.weights.to(device)};
  }
  return routing;
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
