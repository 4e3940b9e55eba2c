#include <algorithm>
#include <array>
#include <functional>
#include <string>

#include "farskip/base/error.h"
#include "farskip/schedule/schedule.h"

namespace farskip {
namespace {

constexpr int lane_count = 2;
int index_of(Lane lane) { return static_cast<int>(lane); }

std::string name_of(const Graph& graph, OpId id) {
  const Op& op = graph.op(id);
  return "op " + std::to_string(id) + " (" + to_string(op.kind) + ", layer " +
         std::to_string(op.attributes.layer) + ")";
}

// What a lane knows to be finished on the other one: lanes are first in, first out, so one position
// says it all. Waiting also passes on what the awaited op itself had waited for.
class Progress {
 public:
  explicit Progress(const Graph& graph) : graph_(graph), position_(graph.ops().size(), none) {}

  bool launched(OpId op) const { return position_[op] != none; }
  int position(OpId op) const { return position_[op]; }  // on its lane; none: not launched
  // True if `op`'s end is known to a step launched on `lane` now.
  bool known(Lane lane, OpId op) const {
    const Lane other = graph_.op(op).lane;
    return other == lane || known_[index_of(lane)] >= position_[op];
  }
  void wait(Lane lane, OpId op) {
    known_[index_of(lane)] = std::max(known_[index_of(lane)], position_[op]);
  }
  void launch(OpId op) { position_[op] = count_[index_of(graph_.op(op).lane)]++; }

 private:
  const Graph& graph_;
  std::vector<int> position_;
  std::array<int, lane_count> count_{}, known_ = {none, none};  // known_: of the other lane
};

std::vector<std::vector<ValueId>> last_uses(const Graph& graph, const std::vector<OpId>& order) {
  std::vector<int> step_of(graph.ops().size(), none);
  for (size_t i = 0; i < order.size(); ++i) step_of[order[i]] = static_cast<int>(i);
  std::vector<bool> leaves(graph.values().size(), false);
  for (ValueId id : graph.outputs()) leaves[id] = true;
  std::vector<std::vector<ValueId>> frees(order.size());
  for (const Value& value : graph.values()) {
    if (value.kind != ValueKind::activation || value.producer == none || leaves[value.id]) continue;
    int last = step_of[value.producer];
    for (OpId reader : graph.consumers(value.id)) last = std::max(last, step_of[reader]);
    frees[last].push_back(value.id);
  }
  return frees;
}

}  // namespace

Schedule schedule_from_order(const Graph& graph, std::string name, const std::vector<OpId>& order,
                             bool block) {
  Schedule schedule{.name = std::move(name), .graph_hash = graph.hash(), .steps = {}};
  if (order.size() != graph.ops().size()) {
    throw ScheduleError("the order does not hold every op once",
                        {.where = schedule.name,
                         .expected = std::to_string(graph.ops().size()) + " ops",
                         .found = std::to_string(order.size())});
  }
  const auto frees = last_uses(graph, order);
  Progress progress(graph);
  std::array<OpId, lane_count> last = {none, none};
  for (size_t i = 0; i < order.size(); ++i) {
    const Op& op = graph.op(order[i]);
    Step step{.op = op.id, .lane = op.lane, .wait_for = {}, .free_after = frees[i]};
    auto wait = [&](OpId before) {
      if (progress.known(op.lane, before)) return;
      step.wait_for.push_back(before);
      progress.wait(op.lane, before);
    };
    const OpId last_on_other_lane = last[1 - index_of(op.lane)];
    if (block && last_on_other_lane != none) wait(last_on_other_lane);
    std::vector<OpId> before(graph.predecessors(op.id).begin(), graph.predecessors(op.id).end());
    // The one launched last first: it makes the others known on a first-in-first-out lane.
    std::ranges::sort(before, std::greater(), [&](OpId id) { return progress.position(id); });
    for (OpId id : before) {
      if (!progress.launched(id)) {
        throw ScheduleError(
            "launched before an op that it needs",
            {.where = schedule.name + ", " + name_of(graph, op.id), .found = name_of(graph, id)});
      }
      wait(id);
    }
    progress.launch(op.id);
    last[index_of(op.lane)] = op.id;
    schedule.steps.push_back(std::move(step));
  }
  return schedule;
}

namespace {

void verify_frees(const Graph& graph, const Schedule& schedule) {
  std::vector<bool> freed(graph.values().size(), false);
  for (const Step& step : schedule.steps) {
    const Op& op = graph.op(step.op);
    for (const auto& ids : {op.inputs, op.outputs}) {
      for (ValueId id : ids) {
        if (freed[id]) {
          throw ScheduleError(
              "uses a value that is freed already",
              {.where = schedule.name + ", " + name_of(graph, op.id),
               .found = "value " + std::to_string(id) + " (" + graph.value(id).name + ")"});
        }
      }
    }
    for (ValueId id : step.free_after) {
      if (id < 0 || id >= static_cast<ValueId>(freed.size()) || freed[id]) {
        throw ScheduleError("frees a value twice, or one that does not exist",
                            {.where = schedule.name, .found = "value " + std::to_string(id)});
      }
      freed[id] = true;
    }
  }
  for (ValueId id : graph.outputs()) {
    if (freed[id]) throw ScheduleError("frees an output of the step", {.where = schedule.name});
  }
}

}  // namespace

void verify(const Graph& graph, const Schedule& schedule) {
  if (schedule.graph_hash != graph.hash() || schedule.steps.size() != graph.ops().size()) {
    throw ScheduleError("the schedule is for another graph",
                        {.where = schedule.name,
                         .expected = std::to_string(graph.ops().size()) + " ops, hash " +
                                     std::to_string(graph.hash()),
                         .found = std::to_string(schedule.steps.size()) + " steps, hash " +
                                  std::to_string(schedule.graph_hash)});
  }
  Progress progress(graph);
  for (const Step& step : schedule.steps) {
    if (step.op < 0 || step.op >= static_cast<OpId>(graph.ops().size())) {
      throw ScheduleError("launches an op that does not exist", {.where = schedule.name});
    }
    const std::string where = schedule.name + ", " + name_of(graph, step.op);
    if (progress.launched(step.op)) throw ScheduleError("launched twice", {.where = where});
    if (step.lane != graph.op(step.op).lane) {
      throw ScheduleError("is on the wrong lane", {.where = where});
    }
    for (OpId id : step.wait_for) {
      if (id < 0 || id >= static_cast<OpId>(graph.ops().size()) || !progress.launched(id)) {
        throw ScheduleError("waits for an op that is not launched", {.where = where});
      }
      if (graph.op(id).lane != step.lane) progress.wait(step.lane, id);
    }
    for (OpId before : graph.predecessors(step.op)) {
      if (!progress.launched(before) || !progress.known(step.lane, before)) {
        throw ScheduleError("may start before an op that it needs is finished",
                            {.where = where, .found = name_of(graph, before)});
      }
    }
    progress.launch(step.op);
  }
  verify_frees(graph, schedule);
}

Schedule blocking_schedule(const Graph& graph) {
  std::vector<OpId> order;
  for (const Op& op : graph.ops()) order.push_back(op.id);
  return schedule_from_order(graph, "blocking", order, true);
}

}  // namespace farskip
