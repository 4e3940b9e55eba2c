#include "farskip/schedule/evaluate.h"

#include <algorithm>
#include <array>
#include <deque>
#include <limits>
#include <optional>

#include "farskip/base/error.h"
#include "farskip/schedule/launch.h"

namespace farskip {
namespace {

constexpr double never = std::numeric_limits<double>::infinity();

class Player {
 public:
  Player(const Graph& graph, const Schedule& schedule, const Durations& durations,
         const Contention& contention, HostModel host, std::span<const double> not_before)
      : graph_(graph),
        schedule_(schedule),
        durations_(durations),
        contention_(contention),
        host_(host),
        not_before_(not_before) {
    const size_t count = graph.ops().size();
    times_.launched.assign(count, never);
    times_.started.assign(count, never);
    times_.ended.assign(count, never);
    launched_.assign(count, false);
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

  bool host_is_free() const {
    const LaneState& compute = lanes_[0];
    if (host_.computes && (compute.running != none || !compute.queue.empty())) return false;
    return host_time_ <= now_;
  }
  bool sizes_known(const Step& step) const {
    return std::ranges::all_of(graph_.predecessors(step.op), [&](OpId before) {
      return !graph_.op(before).host_waits || has_ended(before);
    });
  }

  bool launch_next() {
    while (next_ < schedule_.steps.size() && launched_[schedule_.steps[next_].op]) ++next_;
    if (next_ == schedule_.steps.size() || !host_is_free()) return false;
    const std::optional<size_t> step = step_to_launch();
    if (!step) return false;
    launch(*step);
    return true;
  }

  std::optional<size_t> step_to_launch() const {
    const std::vector<Step>& steps = schedule_.steps;
    if (sizes_known(steps[next_])) return next_;
    if (host_.computes || steps[next_].lane == Lane::compute) return std::nullopt;
    return step_ahead(steps, next_, launched_, [&](const Step& step) { return sizes_known(step); });
  }

  void launch(size_t place) {
    const Step& step = schedule_.steps[place];
    launched_[step.op] = true;
    times_.launched[step.op] = now_;
    host_time_ = now_ + host_.launch_seconds;
    lanes_[static_cast<int>(step.lane)].queue.push_back(place);
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
    const OpId computing = lanes_[0].running;
    if (computing == none || lanes_[1].running == none) return 1.0;
    return 1.0 / (lane == 0 ? contention_.of_compute(computing) : contention_.communication);
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
  const Contention& contention_;
  const HostModel host_;
  const std::span<const double> not_before_;
  std::array<LaneState, 2> lanes_;
  OpTimes times_;
  std::vector<bool> launched_;  // by op
  double now_ = 0, host_time_ = 0;
  size_t next_ = 0, ended_ = 0;  // all steps before next_ are launched
};

}  // namespace

OpTimes evaluate(const Graph& graph, const Schedule& schedule, const Durations& durations,
                 const Contention& contention, HostModel host, std::span<const double> not_before) {
  const auto check = [&](size_t found, const char* what) {
    if (found == graph.ops().size()) return;
    throw ScheduleError(what, {.where = schedule.name,
                               .expected = std::to_string(graph.ops().size()),
                               .found = std::to_string(found)});
  };
  check(durations.size(), "durations do not fit the graph");
  if (!contention.by_op.empty())
    check(contention.by_op.size(), "contention does not fit the graph");
  return Player(graph, schedule, durations, contention, host, not_before).play();
}

}  // namespace farskip
