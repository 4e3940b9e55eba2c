#include "farskip/comm/event.h"

#include <c10/core/Event.h>

#include <chrono>
#include <thread>

#include "farskip/base/error.h"

namespace farskip {
namespace {

class DeviceEvent final : public Event::State {
 public:
  DeviceEvent(const c10::Stream& stream, bool timed)
      : event_(stream.device_type(),
               timed ? c10::EventFlag::BACKEND_DEFAULT : c10::EventFlag::PYTORCH_DEFAULT) {
    event_.record(stream);
  }
  bool done() override { return event_.query(); }
  void block(const c10::Stream& stream) override { event_.block(stream); }
  void synchronize() override { event_.synchronize(); }
  double seconds_since(State& earlier) override {
    auto* const other = dynamic_cast<DeviceEvent*>(&earlier);
    if (!other) throw Error("events of different devices have no time between them");
    return other->event_.elapsedTime(event_) * 1e-3;
  }

 private:
  c10::Event event_;
};

}  // namespace

Event Event::record(const c10::Stream& stream, bool timed) {
  if (stream.device().is_cpu()) return {};
  return Event(std::make_shared<DeviceEvent>(stream, timed));
}

bool Event::done() const { return !state_ || state_->done(); }

void Event::block(const c10::Stream& stream) const {
  if (state_) state_->block(stream);
}

void Event::synchronize() const {
  if (state_) state_->synchronize();
}

bool Event::await(const std::function<bool()>& give_up) const {
  // Mostly a matter of microseconds; what takes longer may cost a little more.
  for (int asked = 1; !done(); ++asked) {
    if (asked % 64 == 0 && give_up()) return false;
    if (asked > 20000) std::this_thread::sleep_for(std::chrono::microseconds(20));
  }
  return true;
}

double Event::seconds_since(const Event& earlier) const {
  if (!state_ || !earlier.state_) throw Error("an event without a device has no time");
  return state_->seconds_since(*earlier.state_);
}

}  // namespace farskip
