#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/StreamGuard.h>

#include <utility>

#include "farskip/comm/group.h"

namespace farskip {

// What `make` computes on the group's stream behind `ready`, and when that is there: an input that
// a launch makes itself must not wait for all that the compute lane has queued.
template <typename Make>
std::pair<at::Tensor, Event> on_stream_of(const Group& group, const Event& ready, Make make) {
  if (group.device().is_cpu()) return {make(), Event()};
  ready.block(group.stream());
  const c10::StreamGuard guard(group.stream());
  at::Tensor made = make();
  return {std::move(made), Event::record(group.stream())};
}

}  // namespace farskip
