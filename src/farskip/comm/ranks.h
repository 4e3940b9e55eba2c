#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "farskip/comm/group.h"

namespace farskip {

struct RankOptions {
  bool pin_threads = false;  // rank r on usable core r, round-robin; only with one thread
  int threads = 1;           // intra-op threads of each rank
};

// Runs function(*groups[r]) on a new thread for each rank, and waits for all
// of them. If a rank throws, the group is aborted, so that the others stop waiting for it,
// and once all have ended the error that came first is rethrown; CommErrors, which are mostly what
// the others notice of it, only if there is no other. Throws UsageError for no or null groups.
void run_ranks(const std::vector<std::unique_ptr<Group>>& groups,
               const std::function<void(Group&)>& function, RankOptions options = {});

// The same for ranks of several groups each, all of which are aborted: function(r) runs as the rank
// of groups[r].
void run_ranks(const std::vector<std::vector<Group*>>& groups,
               const std::function<void(size_t)>& function, RankOptions options = {});

}  // namespace farskip
