#pragma once

#include <c10/core/Device.h>
#include <c10/core/Stream.h>

#include <functional>
#include <memory>

namespace farskip {

// A point in a device stream, passed once everything queued before it is done. An empty event, and
// one recorded on a CPU stream, is passed from the start: CPU work is done when its call returns.
// A handle: copies share one event. Thread rule: any thread may call any member.
class Event {
 public:
  // What a kind of device implements; see event.cpp.
  class State;
  Event() = default;
  explicit Event(std::shared_ptr<State> state) : state_(std::move(state)) {}
  // Records on `stream`; `timed` events can be told apart in time, and cost a little more.
  static Event record(const c10::Stream& stream, bool timed = false);
  // Records on what is the calling thread's current stream of `device`.
  static Event record_current(at::Device device);

  bool valid() const { return state_ != nullptr; }
  // Passed; never blocks. Throws what the device reports, for example a failed kernel.
  bool done() const;
  // Work queued on `stream` from now on waits for the event. Never blocks the host.
  void block(const c10::Stream& stream) const;
  // Blocks the host until the event is passed.
  void synchronize() const;
  // Asks for the event again and again, and every so often whether to give up; true once it is
  // passed, false as soon as `give_up` says so. What `give_up` throws goes on.
  bool await(const std::function<bool()>& give_up) const;
  // Device time from `earlier` to this event; both timed and passed, on one device.
  double seconds_since(const Event& earlier) const;
  // The device's own handle, for what names it to a device's own interface; null where there is
  // none.
  void* handle() const;

 private:
  std::shared_ptr<State> state_;
};

// Gives out events of one device that are used again once nobody holds them: to make and destroy
// one costs the host more than to record it. Thread rule: any thread may call any member.
class EventPool {
 public:
  explicit EventPool(at::Device device);
  // As Event::record; `stream` is of the pool's device.
  Event record(const c10::Stream& stream, bool timed = false);

 private:
  struct Shelf;
  std::shared_ptr<Shelf> shelf_;  // null on a CPU
};

class Event::State {
 public:
  virtual ~State() = default;
  virtual bool done() = 0;
  virtual void block(const c10::Stream& stream) = 0;
  virtual void synchronize() = 0;
  // `earlier` is of the same kind of device.
  virtual double seconds_since(State& earlier) = 0;
  virtual void* handle() { return nullptr; }
};

}  // namespace farskip
