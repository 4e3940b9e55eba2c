#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "farskip/comm/group.h"

namespace farskip {

// What a hook is told about one collective of its rank.
struct Passage {
  int64_t index = 0;  // the rank's collectives, from 0, in posting order; messages count apart
  Tag tag = 0;
  CollectiveBytes bytes;
  Clock::time_point started;  // when the last rank entered
};

// Shapes the timing of one rank's collectives without touching their data: an emulated link, random
// delays, injected failures. The group waits on the hook's behalf, so an abort ends every delay.
// Thread rule: called by the communication thread of one rank, one call at a time; describe() and
// what a hook adds for reports may be called from any thread.
class Hook {
 public:
  virtual ~Hook() = default;
  // How long this rank holds collective `index` back before entering it. Clock::duration::max()
  // holds it until the group fails. Throwing fails the whole group with that error.
  virtual Clock::duration entry_delay(int64_t index, Tag tag) { return {}; }
  // The collective completes on this rank no sooner than this.
  virtual Clock::time_point due(const Passage& passage) { return passage.started; }
  // Told when the collective completed, and the latest due time of all hooks.
  virtual void completed(const Passage& passage, Clock::time_point due,
                         Clock::time_point finished) {}
  // How long after completion the Work still looks unfinished. Later collectives do not wait for
  // it, so Works may finish in another order than they were posted.
  virtual Clock::duration visibility_delay(int64_t index) { return {}; }
  // Whether the communication thread should ask for real-time priority, so that it wakes on time.
  virtual bool needs_precise_timing() const { return false; }
  // e.g. "throttled(2.0 GB/s, 50 us)"
  virtual std::string describe() const = 0;
};

// A group that accepts hooks.
class HookableGroup : public Group {
 public:
  // Adds an outer hook. Throws UsageError once a collective was posted on this rank. Due times of
  // several hooks: the latest holds; delays add up.
  virtual void add_hook(std::shared_ptr<Hook> hook) = 0;
  virtual const std::vector<std::shared_ptr<Hook>>& hooks() const = 0;
};

// The groups as HookableGroups; `what` names the hook. Throws UnsupportedError for a backend
// without hooks and UsageError for an empty list or a null group.
std::vector<HookableGroup*> hookable(const std::vector<std::unique_ptr<Group>>& groups,
                                     const std::string& what);

}  // namespace farskip
