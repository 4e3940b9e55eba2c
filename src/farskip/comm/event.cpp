#include "farskip/comm/event.h"

#include <c10/core/Event.h>

#include "farskip/base/error.h"

namespace farskip {

struct Event::State {
  explicit State(c10::DeviceType type, bool timed)
      : event(type, timed ? c10::EventFlag::BACKEND_DEFAULT : c10::EventFlag::PYTORCH_DEFAULT) {}
  c10::Event event;
};

Event Event::record(const c10::Stream& stream, bool timed) {
  Event result;
  if (stream.device().is_cpu()) return result;
  result.state_ = std::make_shared<State>(stream.device_type(), timed);
  result.state_->event.record(stream);
  return result;
}

bool Event::done() const { return !state_ || state_->event.query(); }

void Event::block(const c10::Stream& stream) const {
  if (state_) state_->event.block(stream);
}

void Event::synchronize() const {
  if (state_) state_->event.synchronize();
}

double Event::seconds_since(const Event& earlier) const {
  if (!state_ || !earlier.state_) throw Error("an event without a device has no time");
  return earlier.state_->event.elapsedTime(state_->event) * 1e-3;
}

}  // namespace farskip
