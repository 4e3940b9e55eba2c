#pragma once

#include <vector>

#include "farskip/comm/group.h"
#include "farskip/runtime/compute_lane.h"
#include "farskip/trace/timeline.h"

namespace farskip {

// When the ops of one rank's step ran: by the host's clock on a CPU, by events on a device, where
// each op costs the host two of them. One thread.
class StepTimes {
 public:
  // Of `ops` ops. Without `timeline` a device records only the events that ops are waited for by.
  StepTimes(const ComputeLane& lane, size_t ops, bool timeline)
      : lane_(lane), timeline_(timeline), ops_(ops) {}

  // Forgets the step before; time counts from here, on the host and on a device.
  void begin();
  // Around an op of the compute lane; `awaited`: another lane waits for it.
  void begin_op(int op);
  void end_op(int op, bool awaited);
  // The events of an op that will be recorded: from now on they stay from step to step.
  void keep_events(int op);
  // While the op is recorded: as begin_op and end_op, each time that its stretch is launched.
  void record_begin(int op) const;
  void record_end(int op) const;
  // Events are made anew from now on.
  void forget_events();
  // Behind it what the op made is there; empty on a CPU.
  const Event& done(int op) const { return ops_[op].done; }

  // Seconds from begin, by the host's clock.
  double host_seconds() const { return host_seconds(Clock::now()); }
  // Seconds from begin to an event that is passed, by a device's clock.
  double device_seconds(const Event& event) const { return event.seconds_since(origin_); }

  // Puts in when a span's op ran, a collective's by its Work. False where nothing was recorded.
  bool set(const Work& work, Span& span) const;

 private:
  struct OpTimes {
    Clock::time_point start, end;
    Event begun, done;
    bool keeps_events = false;
  };
  double host_seconds(Clock::time_point time) const {
    return std::chrono::duration<double>(time - start_).count();
  }
  void set_host_times(const Work& work, Span& span) const;
  bool set_device_times(const Work& work, Span& span) const;

  const ComputeLane& lane_;
  const bool timeline_;
  Clock::time_point start_{};
  Event origin_;
  std::vector<OpTimes> ops_;
};

}  // namespace farskip
