#pragma once

#include <chrono>
#include <memory>
#include <vector>

#include "farskip/comm/group.h"

namespace farskip {

struct LocalOptions {
  // How long any wait for another rank may last, in seconds.
  std::chrono::duration<double> deadline{60};
  // Keeps the communication thread of rank r on usable core r (round-robin), where a compute thread
  // pinned by run_ranks also runs: copies then cost their own rank's time.
  bool pin_threads = false;
  // Where tensors lie: the CPU, or one GPU that all ranks share, each with streams of its own.
  at::Device device = at::kCPU;
};

// A group whose ranks are threads of this process and whose tensors lie in its memory; element r is
// for rank r. Each rank has one communication thread, which carries out its collectives one after
// the other in posting order and copies what the rank receives straight from the senders' inputs.
//
// A collective's WorkTimes::started is when its last rank entered; a rank enters once it has posted
// and its previous collective is complete, on an emulated link: is due. (A link's lateness is not
// passed on to the next collective, which may thus start a little before the last one was seen to
// finish.) A Work is done, even by failure, only when no rank reads or writes its tensors any more.
// Tensors are moved as raw bytes: autograd sees nothing of it. Sums: see ordered_sum.h.
//
// The deadline counts from a rank's entry, and in Work::synchronize from the call; on either the
// whole group fails. Destroying a group object with unfinished collectives, or while another rank
// waits for it, fails the group. Throws UsageError for ranks outside 1 to 256 or a deadline that is
// no positive number of seconds below 1e8.
std::vector<std::unique_ptr<Group>> make_local_groups(int ranks, LocalOptions options = {});

}  // namespace farskip
