#pragma once

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

// Launches every step, each lane's in the schedule's order, and frees values in that order. Where
// lanes `queue` what they are given (on a device), the host does not stand still at a collective
// whose sizes it does not know: it launches compute ops behind it until it does, as far as they
// wait for nothing that is not launched yet. The schedule must have been verified. What the
// launcher throws goes on.
void launch_all(const Schedule& schedule, bool lanes_queue, Launcher& launcher);

}  // namespace farskip
