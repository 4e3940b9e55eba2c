#include "farskip/runtime/routing_state.h"

#include <ATen/ops/cat.h>

#include <utility>

#include "farskip/base/error.h"
#include "farskip/nn/tensor_ops.h"

namespace farskip {

const ExpertLayout& RoutingState::layout(const Placement& placement, int chunks) {
  return layouts_.try_emplace(chunks, placement, chunks).first->second;
}

namespace {

// `copy`, made of `host` unless it is there.
const at::Tensor& copy_on(at::Device device, const at::Tensor& host, at::Tensor& copy) {
  if (!copy.defined() || copy.device() != device) copy = tensor_ops::to_device(host, device);
  return copy;
}

}  // namespace

const at::Tensor& RoutingState::positions(const Placement& placement, int chunks,
                                          at::Device device) {
  return copy_on(device, layout(placement, chunks).position_of_expert(), positions_[chunks]);
}

const at::Tensor& RoutingState::positions_by_rank(const Placement& placement, int chunks,
                                                  at::Device device) {
  return copy_on(device, layout(placement, chunks).positions_by_rank(), positions_by_rank_[chunks]);
}

const ExpertHomes& RoutingState::homes(const Placement& placement, int chunks, at::Device device) {
  const ExpertHomes& host = layout(placement, chunks).homes();
  ExpertHomes& copy = homes_[chunks];
  if (!copy.rank.defined() || copy.rank.device() != device) {
    copy = {.rank = tensor_ops::to_device(host.rank, device),
            .chunk = tensor_ops::to_device(host.chunk, device),
            .local = tensor_ops::to_device(host.local, device)};
  }
  return copy;
}

const Routing& RoutingState::balanced(int64_t tokens, int64_t experts, int64_t top_k,
                                      int64_t first_token, at::Device device) {
  Routing& routing = balanced_[{tokens, experts, top_k, first_token}];
  if (!routing.experts.defined() || routing.experts.device() != device) {
    routing = to_device(balanced_routing(tokens, experts, top_k, first_token * top_k), device);
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

Routing to_device(const Routing& routing, at::Device device) {
  return {tensor_ops::to_device(routing.experts, device),
          tensor_ops::to_device(routing.weights, device)};
}

RoutingState& routing_state_of(const KernelContext& context) {
  auto* state = dynamic_cast<RoutingState*>(context.state);
  if (!state) {
    throw Error("routing kernels need a RoutingState",
                {.where = describe(context.op), .found = "none in the executor's options"});
  }
  return *state;
}

const ExpertLayout& layout_of(const KernelContext& context) {
  return routing_state_of(context).layout(context.placement, context.op.attributes.chunks);
}

}  // namespace farskip
