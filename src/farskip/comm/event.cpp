#include "farskip/comm/event.h"

#include <c10/core/Event.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <array>
#include <chrono>
#include <mutex>
#include <thread>
#include <vector>

#include "farskip/base/error.h"

namespace farskip {
namespace {

class DeviceEvent final : public Event::State {
 public:
  DeviceEvent(at::DeviceType type, bool timed)
      : event_(type, timed ? c10::EventFlag::BACKEND_DEFAULT : c10::EventFlag::PYTORCH_DEFAULT) {}
  void record(const c10::Stream& stream) { event_.record(stream); }
  bool done() override { return event_.query(); }
  void block(const c10::Stream& stream) override { event_.block(stream); }
  void synchronize() override { event_.synchronize(); }
  double seconds_since(State& earlier) override {
    auto* const other = dynamic_cast<DeviceEvent*>(&earlier);
    if (!other) throw Error("events of different devices have no time between them");
    return other->event_.elapsedTime(event_) * 1e-3;
  }
  void* handle() override { return event_.eventId(); }

 private:
  c10::Event event_;
};

}  // namespace

Event Event::record(const c10::Stream& stream, bool timed) {
  if (stream.device().is_cpu()) return {};
  auto state = std::make_shared<DeviceEvent>(stream.device_type(), timed);
  state->record(stream);
  return Event(std::move(state));
}

Event Event::record_current(at::Device device) {
  if (device.is_cpu()) return {};
  return record(c10::impl::VirtualGuardImpl(device.type()).getStream(device));
}

// Events that nobody holds, those that are timed apart.
struct EventPool::Shelf {
  std::mutex mutex;
  std::array<std::vector<std::unique_ptr<DeviceEvent>>, 2> events;
};

EventPool::EventPool(at::Device device)
    : shelf_(device.is_cpu() ? nullptr : std::make_shared<Shelf>()) {}

Event EventPool::record(const c10::Stream& stream, bool timed) {
  if (!shelf_) return {};
  std::unique_ptr<DeviceEvent> event;
  {
    const std::lock_guard lock(shelf_->mutex);
    auto& free = shelf_->events[timed];
    if (!free.empty()) {
      event = std::move(free.back());
      free.pop_back();
    }
  }
  if (!event) event = std::make_unique<DeviceEvent>(stream.device_type(), timed);
  event->record(stream);
  const auto put_back = [shelf = shelf_, timed](DeviceEvent* used) {
    const std::lock_guard lock(shelf->mutex);
    shelf->events[timed].emplace_back(used);
  };
  return Event(std::shared_ptr<DeviceEvent>(event.release(), put_back));
}

bool Event::done() const { return !state_ || state_->done(); }

void Event::block(const c10::Stream& stream) const {
  if (state_) state_->block(stream);
}

void Event::synchronize() const {
  if (state_) state_->synchronize();
}

bool Event::await(const std::function<bool()>& give_up) const {
  // Mostly a matter of milliseconds. A thread that sleeps finds its caches cold afterwards, and
  // what it launches next takes four times as long: only what takes much longer may cost that.
  for (int asked = 1; !done(); ++asked) {
    if (asked % 64 == 0 && give_up()) return false;
    if (asked > 200000) std::this_thread::sleep_for(std::chrono::microseconds(20));
  }
  return true;
}

void* Event::handle() const { return state_ ? state_->handle() : nullptr; }

double Event::seconds_since(const Event& earlier) const {
  if (!state_ || !earlier.state_) throw Error("an event without a device has no time");
  return state_->seconds_since(*earlier.state_);
}

}  // namespace farskip
