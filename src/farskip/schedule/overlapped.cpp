#include <algorithm>
#include <array>
#include <limits>
#include <numeric>

#include "farskip/base/error.h"
#include "farskip/schedule/evaluate.h"
#include "farskip/schedule/memory.h"
#include "farskip/schedule/places.h"
#include "farskip/schedule/schedule.h"

namespace farskip {
namespace {

constexpr double never = std::numeric_limits<double>::infinity();

// Longest way from the start of each op to the end of the step, communication weighted.
std::vector<double> path_to_end(const Graph& graph, const Durations& durations,
                                double communication_weight) {
  std::vector<double> path(graph.ops().size(), 0);
  for (auto op = graph.ops().rbegin(); op != graph.ops().rend(); ++op) {
    double behind = 0;
    for (OpId next : graph.successors(op->id)) behind = std::max(behind, path[next]);
    const double weight = op->lane == Lane::communication ? communication_weight : 1.0;
    path[op->id] = behind + weight * durations[op->id];
  }
  return path;
}

// Compute from each op to the next communication it leads to: what feeds the link soonest is small.
std::vector<double> compute_before_communication(const Graph& graph, const Durations& durations) {
  std::vector<double> until(graph.ops().size(), never);
  for (auto op = graph.ops().rbegin(); op != graph.ops().rend(); ++op) {
    if (op->lane == Lane::communication) {
      until[op->id] = 0;
      continue;
    }
    for (OpId next : graph.successors(op->id)) until[op->id] = std::min(until[op->id], until[next]);
    until[op->id] += durations[op->id];
  }
  return until;
}

bool has_backward(const Graph& graph) {
  return std::ranges::any_of(graph.ops(), [](const Op& op) { return !op.accumulates.empty(); });
}

// Greedy in simulated time: whenever a lane is free, the ready op of highest priority starts.
class ListScheduler {
 public:
  ListScheduler(const Graph& graph, const Durations& durations, const std::vector<double>& priority)
      : graph_(graph),
        durations_(durations),
        priority_(priority),
        open_(graph.ops().size()),
        start_(graph.ops().size(), never),
        ready_at_(graph.ops().size(), 0) {}

  std::vector<OpId> order() {
    for (const Op& op : graph_.ops()) {
      open_[op.id] = graph_.predecessors(op.id).size();
      if (open_[op.id] == 0) ready_[lane(op)].push_back(op.id);
    }
    size_t done = 0;
    while (done < graph_.ops().size()) {
      start(0);
      start(1);
      const int next = ends_[0] <= ends_[1] ? 0 : 1;
      now_ = ends_[next];
      finish(next);
      ++done;
    }
    return launch_order();
  }

 private:
  static int lane(const Op& op) { return static_cast<int>(op.lane); }

  void start(int lane) {
    if (running_[lane] != none || ready_[lane].empty()) return;
    auto& ready = ready_[lane];
    const auto best = std::min_element(ready.begin(), ready.end(), [&](OpId a, OpId b) {
      return priority_[a] != priority_[b] ? priority_[a] > priority_[b] : a < b;
    });
    running_[lane] = *best;
    start_[*best] = now_;
    ends_[lane] = now_ + durations_[*best];
    started_[lane].push_back(*best);
    ready.erase(best);
  }

  void finish(int lane) {
    const OpId op = running_[lane];
    running_[lane] = none;
    ends_[lane] = never;
    for (OpId next : graph_.successors(op)) {
      ready_at_[next] = std::max(ready_at_[next], now_);
      if (--open_[next] == 0) ready_[this->lane(graph_.op(next))].push_back(next);
    }
  }

  // Communication is launched as soon as it is ready, ahead of compute that starts then or later:
  // a compute op that began earlier keeps the host busy, or keeps it from idling while it waits.
  std::vector<OpId> launch_order() const {
    std::vector<OpId> order;
    size_t next = 0;
    double ready = 0;
    for (OpId op : started_[1]) {
      ready = std::max(ready, ready_at_[op]);
      auto needed = [&](OpId compute) {
        return std::ranges::binary_search(graph_.predecessors(op), compute);
      };
      size_t until = next;
      for (size_t i = next; i < started_[0].size() && start_[started_[0][i]] <= ready; ++i) {
        // Of the ops that start just when this one is ready, only zero-length ones it needs go
        // first.
        if (start_[started_[0][i]] < ready || needed(started_[0][i])) until = i + 1;
      }
      while (next < until) order.push_back(started_[0][next++]);
      order.push_back(op);
    }
    while (next < started_[0].size()) order.push_back(started_[0][next++]);
    return order;
  }

  const Graph& graph_;
  const Durations& durations_;
  const std::vector<double>& priority_;
  std::vector<size_t> open_;
  std::vector<double> start_, ready_at_;
  std::array<std::vector<OpId>, 2> ready_, started_;
  std::array<OpId, 2> running_ = {none, none};
  std::array<double, 2> ends_ = {never, never};
  double now_ = 0;
};

std::vector<std::vector<double>> priorities(const Graph& graph, const Durations& durations) {
  std::vector<std::vector<double>> all;
  for (double weight : {1.0, 2.0, 4.0}) all.push_back(path_to_end(graph, durations, weight));
  const std::vector<double> until = compute_before_communication(graph, durations);
  const double longest = 1.0 + std::accumulate(durations.begin(), durations.end(), 0.0);
  // Layer by layer, down again in the backward pass; within one, what leads to communication
  // soonest.
  const std::vector<int> places = places_along(graph);
  std::vector<double> feed(until.size());
  for (size_t i = 0; i < until.size(); ++i) {
    feed[i] = -(places[i] * longest + std::min(until[i], longest / 2));
  }
  all.push_back(feed);
  if (has_backward(graph)) {
    // The same with weight gradients as soon as can be: what they read is free sooner, and
    // gradients are reduced sooner.
    for (const Op& op : graph.ops()) {
      if (!op.accumulates.empty()) feed[op.id] = 0;
    }
    all.push_back(std::move(feed));
  }
  // Soonest communication first, whatever the layer.
  std::vector<double> soonest(until.size());
  for (size_t i = 0; i < until.size(); ++i) soonest[i] = -std::min(until[i], longest);
  all.push_back(std::move(soonest));
  return all;
}

struct Candidate {
  Schedule schedule;
  double step = 0;  // seconds, in simulation
  double peak = 0;  // bytes of activations; 0: of no interest
};

// The fastest; but to hold half as much is worth two hundredths of the step's time. Never one that
// takes longer than `limit`, which one of them keeps to.
Candidate& best_of(std::vector<Candidate>& candidates, double limit) {
  const double fastest = std::ranges::min_element(candidates, {}, &Candidate::step)->step;
  const double most = std::ranges::max_element(candidates, {}, &Candidate::peak)->peak;
  auto price = [&](const Candidate& candidate) {
    if (candidate.step > limit) return never;
    const double seconds = fastest > 0 ? candidate.step / fastest : 1;
    return most > 0 ? seconds + 0.04 * candidate.peak / most : seconds;
  };
  return *std::ranges::min_element(candidates, {}, price);
}

}  // namespace

Schedule overlapped_schedule(const Graph& graph, const Durations& durations,
                             const Contention& contention, HostModel host) {
  const bool saves_memory = has_backward(graph);
  std::vector<Candidate> candidates;
  auto add = [&](Schedule schedule) {
    const double step = evaluate(graph, schedule, durations, contention, host).step;
    const double peak = saves_memory ? peak_activation_bytes(graph, schedule) : 0;
    candidates.push_back({std::move(schedule), step, peak});
    return step;
  };
  for (const auto& priority : priorities(graph, durations)) {
    add(schedule_from_order(graph, "overlapped",
                            ListScheduler(graph, durations, priority).order()));
  }
  const double released = add(released_schedule(graph)), blocking = add(blocking_schedule(graph));
  Candidate& best = best_of(candidates, std::min(released, blocking));
  best.schedule.name = "overlapped";
  return std::move(best.schedule);
}

Schedule make_schedule(std::string_view name, const Graph& graph, const Durations& durations,
                       const Contention& contention, HostModel host) {
  if (name == "blocking") return blocking_schedule(graph);
  if (name == "released") return released_schedule(graph);
  if (name == "overlapped") return overlapped_schedule(graph, durations, contention, host);
  throw UsageError("unknown schedule", {.where = "--schedule",
                                        .expected = "blocking, released or overlapped",
                                        .found = std::string(name)});
}

}  // namespace farskip
