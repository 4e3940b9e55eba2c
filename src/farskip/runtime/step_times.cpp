#include "farskip/runtime/step_times.h"

#include <optional>

#include "farskip/cuda/launch_graph.h"

namespace farskip {

void StepTimes::begin() {
  for (OpTimes& op : ops_) {
    if (!op.keeps_events) op = OpTimes();
  }
  start_ = Clock::now();
  origin_ = lane_.mark(true);
}

void StepTimes::begin_op(int op) {
  if (lane_.queues() && timeline_) ops_[op].begun = lane_.mark(true);
  ops_[op].start = Clock::now();
}

void StepTimes::end_op(int op, bool awaited) {
  ops_[op].end = Clock::now();
  if (lane_.queues() && (timeline_ || awaited)) ops_[op].done = lane_.mark(timeline_);
}

void StepTimes::keep_events(int op) {
  if (!timeline_) return;
  ops_[op] = {.start = {}, .end = {}, .begun = lane_.mark(true), .done = lane_.mark(true)};
  ops_[op].keeps_events = true;
}

void StepTimes::record_begin(int op) const {
  if (timeline_) cuda::record_event_in_graph(ops_[op].begun.handle(), lane_.stream());
}

void StepTimes::record_end(int op) const {
  if (timeline_) cuda::record_event_in_graph(ops_[op].done.handle(), lane_.stream());
}

void StepTimes::forget_events() {
  for (OpTimes& op : ops_) op.keeps_events = false;
}

bool StepTimes::set(const Work& work, Span& span) const {
  if (lane_.queues()) return set_device_times(work, span);
  set_host_times(work, span);
  return true;
}

void StepTimes::set_host_times(const Work& work, Span& span) const {
  if (work.valid()) {
    const WorkTimes times = work.times();
    span.posted = host_seconds(times.posted);
    span.start = host_seconds(times.started);
    span.end = host_seconds(times.finished);
  } else {
    span.posted = span.start = host_seconds(ops_[span.op].start);
    span.end = host_seconds(ops_[span.op].end);
  }
}

bool StepTimes::set_device_times(const Work& work, Span& span) const {
  if (!timeline_) return false;
  if (work.valid()) {
    const std::optional<DeviceTimes> times = work.device_times(origin_);
    if (!times) return false;
    span.posted = span.start = times->started;
    span.end = times->finished;
  } else {
    span.posted = span.start = device_seconds(ops_[span.op].begun);
    span.end = device_seconds(ops_[span.op].done);
  }
  return true;
}

}  // namespace farskip
