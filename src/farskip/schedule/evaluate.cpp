#include "farskip/schedule/evaluate.h"

#include <algorithm>
#include <array>
#include <deque>
#include <limits>

#include "farskip/base/error.h"

namespace farskip {
namespace {

constexpr double never = std::numeric_limits<double>::infinity();

class Player {
 public:
  Player(const Graph& graph, const Schedule& schedule, const Durations& durations,
         Contention contention, HostModel host, std::span<const double> not_before)
      : graph_(graph),
        schedule_(schedule),
        durations_(durations),
        slowdown_{contention.compute, contention.communication},
        host_(host),
        not_before_(not_before) {
    const size_t count = graph.ops().size();
    times_.launched.assign(count, never);
    times_.started.assign(count, never);
    times_.ended.assign(count, never);
  }

  OpTimes play() {
    while (ended_ < schedule_.steps.size()) {
      while (launch_next() || start_next(0) || start_next(1)) {
      }
      advance();
    }
    times_.step = now_;
    return std::move(times_);
  }

 private:
  struct LaneState {
    std::deque<size_t> queue;  // launched steps that have not started
    OpId running = none;
    double left = 0;  // seconds of work, without contention
  };

  double held_until(OpId op) const { return not_before_.empty() ? 0 : not_before_[op]; }
  // When what is at the head of a lane may start, if only other ranks hold it back.
  double next_release() const {
    double next = never;
    for (const LaneState& lane : lanes_) {
      if (lane.running != none || lane.queue.empty()) continue;
      const double until = held_until(schedule_.steps[lane.queue.front()].op);
      if (until > now_) next = std::min(next, until);
    }
    return next;
  }

  bool has_ended(OpId op) const { return times_.ended[op] <= now_; }

  bool host_is_free(const Op& op) const {
    if (host_time_ > now_) return false;
    if (host_.computes && (lanes_[0].running != none || !lanes_[0].queue.empty())) return false;
    for (OpId before : graph_.predecessors(op.id)) {
      if (graph_.op(before).host_waits && !has_ended(before)) return false;
    }
    return true;
  }

  bool launch_next() {
    if (next_ == schedule_.steps.size()) return false;
    const Step& step = schedule_.steps[next_];
    if (!host_is_free(graph_.op(step.op))) return false;
    times_.launched[step.op] = now_;
    host_time_ = now_ + host_.launch_seconds;
    lanes_[static_cast<int>(step.lane)].queue.push_back(next_);
    ++next_;
    return true;
  }

  bool start_next(int lane) {
    LaneState& state = lanes_[lane];
    if (state.running != none || state.queue.empty()) return false;
    const Step& step = schedule_.steps[state.queue.front()];
    if (!std::all_of(step.wait_for.begin(), step.wait_for.end(),
                     [&](OpId op) { return has_ended(op); })) {
      return false;
    }
    // Launch overhead of the host counts before the op can start.
    if (host_.launch_seconds > 0 && times_.launched[step.op] + host_.launch_seconds > now_) {
      return false;
    }
    if (held_until(step.op) > now_) return false;
    state.queue.pop_front();
    state.running = step.op;
    state.left = durations_.at(step.op);
    times_.started[step.op] = now_;
    if (state.left <= 0) finish(lane);
    return true;
  }

  void finish(int lane) {
    times_.ended[lanes_[lane].running] = now_;
    lanes_[lane].running = none;
    ++ended_;
  }

  double rate(int lane) const {
    const bool both = lanes_[0].running != none && lanes_[1].running != none;
    return both ? 1.0 / slowdown_[lane] : 1.0;
  }

  // To the next end of an op, or to when the host is free again.
  void advance() {
    if (ended_ == schedule_.steps.size()) return;
    double step = never;
    for (int lane : {0, 1}) {
      if (lanes_[lane].running != none) step = std::min(step, lanes_[lane].left / rate(lane));
    }
    if (host_time_ > now_) step = std::min(step, host_time_ - now_);
    const double release = next_release();
    if (release < never) step = std::min(step, release - now_);
    if (step == never) {
      throw ScheduleError("the schedule gets stuck",
                          {.where = schedule_.name,
                           .found = std::to_string(ended_) + " of " +
                                    std::to_string(schedule_.steps.size()) + " ops finished"});
    }
    const std::array<double, 2> rates = {rate(0), rate(1)};
    const double before = now_;
    now_ += step;
    if (host_time_ > before && host_time_ - before <= step) now_ = std::min(now_, host_time_);
    if (release - before <= step) now_ = std::max(now_, release);  // not short of it by rounding
    for (int lane : {0, 1}) {
      LaneState& state = lanes_[lane];
      if (state.running == none) continue;
      const double done = step * rates[lane];
      const bool ends = state.left <= done * (1 + 1e-12);
      state.left -= done;
      if (ends) finish(lane);
    }
  }

  const Graph& graph_;
  const Schedule& schedule_;
  const Durations& durations_;
  const std::array<double, 2> slowdown_;
  const HostModel host_;
  const std::span<const double> not_before_;
  std::array<LaneState, 2> lanes_;
  OpTimes times_;
  double now_ = 0, host_time_ = 0;
  size_t next_ = 0, ended_ = 0;
};

}  // namespace

OpTimes evaluate(const Graph& graph, const Schedule& schedule, const Durations& durations,
                 Contention contention, HostModel host, std::span<const double> not_before) {
  if (durations.size() != graph.ops().size()) {
    throw ScheduleError("durations do not fit the graph",
                        {.where = schedule.name,
                         .expected = std::to_string(graph.ops().size()),
                         .found = std::to_string(durations.size())});
  }
  return Player(graph, schedule, durations, contention, host, not_before).play();
}

}  // namespace farskip
