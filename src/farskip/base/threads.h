#pragma once

#include <chrono>
#include <string>
#include <vector>

namespace farskip {

// What a thread may ask of the operating system, each for the calling thread only. All of these are
// improvements of timing, none is needed for correctness: they return false where the system
// refuses.

// Cores that this process may run on, ascending; never empty.
std::vector<int> usable_cores();

// Keeps the calling thread on one core.
bool pin_thread_to_core(int core);

// The name in debuggers and top; cut to 15 bytes.
bool name_thread(const std::string& name);

// How late the kernel may wake this thread to save power; its default is 50 us.
bool set_timer_slack(std::chrono::nanoseconds slack);

// Lets the thread run before every ordinary one as soon as it wakes (SCHED_FIFO, lowest real-time
// priority). Only for threads that mostly sleep: a busy one starves its core. Needs privilege.
bool try_real_time_priority();

// The weaker form: nice -10. Needs privilege.
bool try_high_priority();

}  // namespace farskip
