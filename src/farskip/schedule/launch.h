#pragma once

#include <functional>
#include <optional>
#include <span>

#include "farskip/schedule/schedule.h"

namespace farskip {

// What a schedule's steps are launched on: tensors, or a count of bytes.
class Launcher {
 public:
  virtual ~Launcher() = default;
  // Launches one step, having waited for sizes that it needs and the host does not know.
  virtual void launch(const Step& step) = 0;
  // Whether launch would not have to wait.
  virtual bool sizes_known(const Step& step) = 0;
  // No step reads the value any more.
  virtual void free(ValueId value) = 0;
};

// While the host does not know the sizes of steps[next], a collective: the place of the compute
// step that it launches meanwhile, the first behind it that is not `launched` (by op), if that
// waits for nothing that is not launched, and its own sizes are known. Nothing: the host waits.
std::optional<size_t> step_ahead(std::span<const Step> steps, size_t next,
                                 const std::vector<bool>& launched,
                                 const std::function<bool(const Step&)>& sizes_known);

// Launches every step, each lane's in the schedule's order, and frees values in that order. Where
// lanes `queue` what they are given (on a device), the host does not stand still at a collective
// whose sizes it does not know: it launches compute ops behind it until it does, as far as they
// wait for nothing that is not launched yet. The schedule must have been verified. What the
// launcher throws goes on.
void launch_all(const Schedule& schedule, bool lanes_queue, Launcher& launcher);

}  // namespace farskip
