#include "farskip/comm/group.h"

#include "farskip/comm/collective.h"

namespace farskip {
namespace {

Work::State& get(const std::shared_ptr<Work::State>& state) {
  if (!state) throw CommError("this Work belongs to no collective");
  return *state;
}

}  // namespace

bool Work::done() const { return get(state_).done(); }
std::exception_ptr Work::error() const { return get(state_).error(); }
void Work::synchronize() const { get(state_).synchronize(); }
void Work::wait(const c10::Stream& stream) const { get(state_).wait(stream); }
void Work::let_tensors_go() const { get(state_).let_tensors_go(); }
WorkTimes Work::times() const { return get(state_).times(); }
std::optional<DeviceTimes> Work::device_times(const Event& origin) const {
  return get(state_).device_times(origin);
}

Work Group::all_to_all(at::Tensor out, at::Tensor in, Rows out_rows, Rows in_rows, Tag tag,
                       Event ready) {
  return submit({.kind = CollectiveKind::all_to_all,
                 .tag = tag,
                 .out = std::move(out),
                 .in = std::move(in),
                 .out_rows = {out_rows.begin(), out_rows.end()},
                 .in_rows = {in_rows.begin(), in_rows.end()},
                 .ready = std::move(ready)});
}

Work Group::all_gather(at::Tensor out, at::Tensor in, Tag tag, Event ready) {
  return submit({.kind = CollectiveKind::all_gather,
                 .tag = tag,
                 .out = std::move(out),
                 .in = std::move(in),
                 .ready = std::move(ready)});
}

Work Group::reduce_scatter(at::Tensor out, at::Tensor in, Tag tag, Event ready) {
  return submit({.kind = CollectiveKind::reduce_scatter,
                 .tag = tag,
                 .out = std::move(out),
                 .in = std::move(in),
                 .ready = std::move(ready)});
}

Work Group::all_reduce(at::Tensor out, at::Tensor in, Tag tag, Event ready) {
  return submit({.kind = CollectiveKind::all_reduce,
                 .tag = tag,
                 .out = std::move(out),
                 .in = std::move(in),
                 .ready = std::move(ready)});
}

Work Group::broadcast(at::Tensor tensor, int root, Tag tag, Event ready) {
  return submit({.kind = CollectiveKind::broadcast,
                 .tag = tag,
                 .root = root,
                 .out = tensor,
                 .in = tensor,
                 .ready = std::move(ready)});
}

Work Group::barrier(Tag tag) { return submit({.kind = CollectiveKind::barrier, .tag = tag}); }

Work Group::send(at::Tensor tensor, int to, Tag tag, Event ready) {
  return submit({.kind = CollectiveKind::send,
                 .tag = tag,
                 .root = to,
                 .in = std::move(tensor),
                 .ready = std::move(ready)});
}

Work Group::receive(at::Tensor tensor, int from, Tag tag, Event ready) {
  return submit({.kind = CollectiveKind::receive,
                 .tag = tag,
                 .root = from,
                 .out = std::move(tensor),
                 .ready = std::move(ready)});
}

Work Group::post_on(Group& group, Collective collective) {
  return group.post(std::move(collective));
}

Work Group::submit(Collective collective) {
  collective.rank = rank();
  collective.size = size();
  collective.device = device();
  check_arguments(collective);
  return post(std::move(collective));
}

}  // namespace farskip
