#include "farskip/schedule/stages.h"

#include <algorithm>
#include <deque>
#include <map>
#include <string>
#include <utility>

#include "farskip/base/error.h"

namespace farskip {
namespace {

std::string name_of(size_t stage, const Op& op) {
  return "stage " + std::to_string(stage) + ", op " + std::to_string(op.id) + " (" +
         to_string(op.kind) + ", message " + std::to_string(op.attributes.message) + ")";
}

bool is_sum_over_stages(const Op& op) {
  return op.kind == OpKind::all_reduce && is_between_stages(op.attributes);
}

// Every stage does the steps of its schedule one after the other.
class Walk {
 public:
  explicit Walk(std::span<const ScheduledStage> stages)
      : stages_(stages), next_(stages.size(), 0) {}

  void run() {
    for (bool moves = true; moves;) {
      moves = false;
      for (size_t stage = 0; stage < stages_.size(); ++stage) {
        while (!is_done(stage) && step(stage)) moves = true;
      }
      moves |= sum_over_stages();
    }
    for (size_t stage = 0; stage < stages_.size(); ++stage) {
      if (!is_done(stage)) {
        throw ScheduleError("stages wait for each other",
                            {.where = name_of(stage, at(stage)), .found = "nothing to wait for"});
      }
    }
    for (const auto& [link, messages] : sent_) {
      if (!messages.empty()) {
        throw ScheduleError("a message is never received",
                            {.where = "stage " + std::to_string(link.second),
                             .found = "message " + std::to_string(messages.front())});
      }
    }
  }

 private:
  bool is_done(size_t stage) const { return next_[stage] == stages_[stage].schedule.steps.size(); }
  const Op& at(size_t stage) const {
    return stages_[stage].graph.op(stages_[stage].schedule.steps[next_[stage]].op);
  }

  // Does the next step of a stage, unless that has to wait.
  bool step(size_t stage) {
    const Op& op = at(stage);
    const int here = static_cast<int>(stage), peer = op.attributes.peer;
    if (is_sum_over_stages(op)) return false;
    if (op.kind == OpKind::send) sent_[{here, peer}].push_back(op.attributes.message);
    if (op.kind == OpKind::receive) {
      std::deque<int>& messages = sent_[{peer, here}];
      if (messages.empty()) return false;
      if (messages.front() != op.attributes.message) {
        throw ScheduleError("messages are received in another order than they are sent",
                            {.where = name_of(stage, op),
                             .expected = "message " + std::to_string(messages.front())});
      }
      messages.pop_front();
    }
    ++next_[stage];
    return true;
  }

  bool sum_over_stages() {
    for (size_t stage = 0; stage < stages_.size(); ++stage) {
      if (is_done(stage) || !is_sum_over_stages(at(stage))) return false;
    }
    for (size_t& next : next_) ++next;
    return true;
  }

  const std::span<const ScheduledStage> stages_;
  std::vector<size_t> next_;                             // by stage: of its steps
  std::map<std::pair<int, int>, std::deque<int>> sent_;  // by stages: messages under way
};

}  // namespace

void verify_stages(std::span<const ScheduledStage> stages) { Walk(stages).run(); }

// Each stage is played for itself until no message comes later than it was taken to.
std::vector<OpTimes> evaluate_stages(std::span<const ScheduledStage> stages,
                                     std::span<const Durations> durations,
                                     const Contention& contention, HostModel host) {
  verify_stages(stages);
  std::vector<Durations> not_before;
  for (const ScheduledStage& stage : stages) not_before.emplace_back(stage.graph.ops().size(), 0.0);
  std::vector<OpTimes> times(stages.size());
  std::vector<bool> stale(stages.size(), true);
  auto delay = [&](size_t stage, OpId op, double seconds) {
    if (seconds <= not_before[stage][op]) return;
    not_before[stage][op] = seconds;
    stale[stage] = true;
  };
  while (std::ranges::count(stale, true) > 0) {
    for (size_t s = 0; s < stages.size(); ++s) {
      if (!stale[s]) continue;
      times[s] = evaluate(stages[s].graph, stages[s].schedule, durations[s], contention, host,
                          not_before[s]);
      stale[s] = false;
    }
    std::map<std::pair<size_t, int>, double> sent;  // by receiver and message
    double summed = 0;                              // when the last stage gets to the sum
    for (size_t s = 0; s < stages.size(); ++s) {
      for (const Op& op : stages[s].graph.ops()) {
        if (op.kind == OpKind::send) {
          sent[{static_cast<size_t>(op.attributes.peer), op.attributes.message}] =
              times[s].ended[op.id];
        } else if (is_sum_over_stages(op)) {
          summed = std::max(summed, times[s].started[op.id]);
        }
      }
    }
    for (size_t s = 0; s < stages.size(); ++s) {
      for (const Op& op : stages[s].graph.ops()) {
        if (op.kind == OpKind::receive) delay(s, op.id, sent.at({s, op.attributes.message}));
        if (is_sum_over_stages(op)) delay(s, op.id, summed);
      }
    }
  }
  return times;
}

}  // namespace farskip
