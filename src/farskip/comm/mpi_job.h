#pragma once

#include <mpi.h>

#include <atomic>
#include <future>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "farskip/comm/group.h"

namespace farskip {

// Throws CommError with MPI's own words unless `code` is MPI_SUCCESS; `call` names the function.
void check_mpi(int code, const char* call);

// Sleeps between polls, an eighth of the wait so far: what comes soon is seen soon, and a long wait
// costs little.
class PollPause {
 public:
  explicit PollPause(Clock::duration longest) : longest_(longest) {}
  void sleep();

 private:
  const Clock::duration longest_;
  const Clock::time_point begin_ = Clock::now();
};

// The process's membership in an MPI job; what its groups share. Thread rule: any thread, except
// that starting, farewell and end are for the owner.
class MpiJob {
 public:
  // Starts MPI; throws as MpiProcess.
  explicit MpiJob(Clock::duration deadline);

  Clock::duration deadline() const { return deadline_; }
  int rank() const { return rank_; }
  int size() const { return size_; }
  // Groups so far: the same number on every process for the same group.
  int next_group() { return groups_++; }

  // A group has failed: the job can not end in order any more.
  void mark_failed() { failed_ = true; }
  bool failed() const { return failed_; }

  // A communicator that no group uses any more; freed when the job ends in order.
  void retire(MPI_Comm communicator);
  // Memory that MPI may still read or write: kept until the process ends.
  void keep(std::shared_ptr<void> memory);

  // Whether all processes got here within `limit`.
  bool farewell(Clock::duration limit) noexcept;
  // Ends MPI in order; false if that took longer than `limit`.
  bool end(Clock::duration limit) noexcept;
  // Ends all processes of the job, this one included.
  [[noreturn]] void abort(int exit_code) noexcept;

 private:
  // Lives on the thread that MPI calls its main thread: one that nothing else waits for without a
  // limit, since MPI_Init and MPI_Finalize can take for ever.
  struct Life {
    std::promise<std::string> started;  // empty, or what went wrong
    std::promise<void> may_end, ended;
  };
  static void live(Life& life);
  void free_communicators();

  const Clock::duration deadline_;
  const std::shared_ptr<Life> life_;
  int rank_ = 0, size_ = 1;
  std::atomic<int> groups_ = 0;
  std::atomic<bool> failed_ = false;
  std::mutex mutex_;  // guards the rest
  std::vector<MPI_Comm> retired_;
  std::vector<std::shared_ptr<void>> kept_;
};

}  // namespace farskip
