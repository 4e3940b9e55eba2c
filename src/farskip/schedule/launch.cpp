#include "farskip/schedule/launch.h"

#include <algorithm>

namespace farskip {
namespace {

class Walk {
 public:
  Walk(const Schedule& schedule, Launcher& launcher)
      : steps_(schedule.steps), launcher_(launcher), launched_(steps_.size(), false) {}

  void run(bool lanes_queue) {
    size_t freed = 0;
    for (size_t next = 0; next < steps_.size(); ++next) {
      if (!launched_[steps_[next].op]) {
        if (lanes_queue && steps_[next].lane == Lane::communication) run_ahead(next);
        launch(steps_[next]);
      }
      // What runs ahead frees nothing that a step before it still reads.
      for (; freed < steps_.size() && launched_[steps_[freed].op]; ++freed) {
        for (ValueId id : steps_[freed].free_after) launcher_.free(id);
      }
    }
  }

 private:
  void run_ahead(size_t next) {
    const auto known = [&](const Step& step) { return launcher_.sizes_known(step); };
    while (!known(steps_[next])) {
      const std::optional<size_t> ahead = step_ahead(steps_, next, launched_, known);
      if (!ahead) return;
      launch(steps_[*ahead]);
    }
  }

  void launch(const Step& step) {
    launcher_.launch(step);
    launched_[step.op] = true;
  }

  const std::vector<Step>& steps_;
  Launcher& launcher_;
  std::vector<bool> launched_;  // by op: a verified schedule has every op once
};

}  // namespace

std::optional<size_t> step_ahead(std::span<const Step> steps, size_t next,
                                 const std::vector<bool>& launched,
                                 const std::function<bool(const Step&)>& sizes_known) {
  for (size_t i = next + 1; i < steps.size(); ++i) {
    const Step& step = steps[i];
    if (launched[step.op] || step.lane == Lane::communication) continue;
    const bool free = std::ranges::all_of(step.wait_for, [&](OpId op) { return launched[op]; });
    return free && sizes_known(step) ? std::optional(i) : std::nullopt;
  }
  return std::nullopt;
}

void launch_all(const Schedule& schedule, bool lanes_queue, Launcher& launcher) {
  Walk(schedule, launcher).run(lanes_queue);
}

}  // namespace farskip
