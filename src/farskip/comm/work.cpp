#include "farskip/comm/group.h"

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
WorkTimes Work::times() const { return get(state_).times(); }

}  // namespace farskip
