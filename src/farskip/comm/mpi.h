#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

#include "farskip/comm/group.h"

namespace farskip {

// Whether this build has the mpi transport.
bool mpi_is_available();

// The library behind it, e.g. "Open MPI 4.1.4"; empty without one. Any thread.
std::string mpi_version();

class MpiJob;

// The time during which this process belongs to an MPI job; one per process, ever. Groups must not
// outlive it. MPI belongs to the library meanwhile: MPI_COMM_WORLD carries its messages.
// Thread rule: made and destroyed by one thread; the getters for any.
class MpiProcess {
 public:
  // Starts MPI and waits at most `deadline` for the job's other processes. Throws CommError when
  // that passes or MPI does not start, UsageError for a second one and for a deadline that is no
  // positive number of seconds below 1e8, UnsupportedError in a build without MPI.
  explicit MpiProcess(std::chrono::duration<double> deadline);
  // Waits for the other processes to get here, at most for the deadline: an error that is to be
  // read must have been printed by now. Then ends MPI in order; or, if a group has failed or a
  // process stays away (2 s are enough where an error is on its way), ends the whole job by
  // MPI_Abort, this process included, with exit code 1 or what fail_with said. So nothing is left
  // behind and nothing hangs.
  ~MpiProcess();
  MpiProcess(const MpiProcess&) = delete;
  MpiProcess& operator=(const MpiProcess&) = delete;

  int rank() const;
  int size() const;
  // The exit code of the job, should it have to be aborted. 1 to 255.
  void fail_with(int exit_code);

 private:
  friend std::unique_ptr<Group> make_mpi_group(const MpiProcess& process,
                                               const struct MpiOptions& options);
  std::shared_ptr<MpiJob> job_;
  int exceptions_ = 0;  // under way when this was made
  int exit_code_ = 1;
};

struct MpiOptions {
  // How long any wait for another rank may last, in seconds. Every rank's own, though best equal.
  std::chrono::duration<double> deadline{60};
  // What the ranks must have alike: the library's version. Another value is for tests.
  std::string version;
  // Bytes of the longest message; what is longer goes in several. 1 to 2^31 - 1, on all ranks the
  // same.
  int64_t longest_message = int64_t{1} << 30;
  // Processes that say the same number, 0 or more, are a group of their own, ranked as in the job.
  int part = 0;
  // Keeps the communication thread of rank r on usable core r (round-robin), as run_ranks can its
  // compute thread.
  bool pin_thread = false;
};

// This process's rank in a group of all processes of the job, or of its part of them, on CPU
// tensors; every process makes as many groups in the same order. Bytes go straight from rank to
// rank, between the tensors, without a copy of the library's. A communication thread of its own
// carries out collectives in posting order and does all of the group's MPI calls; it sleeps between
// polls.
//
// WorkTimes::started is when this rank saw the last one enter. Sums: see ordered_sum.h; the bits
// are those of the local backend. Every rank is told of a failure on any, with its reason. Only
// where a rank stops in the middle of moving bytes may tensors of a failed Work still be written
// to; they are kept alive until the process ends.
//
// Throws CommError when ranks differ in protocol, version or options, or one does not come within
// the deadline; UsageError for options out of range; UnsupportedError in a build without MPI.
std::unique_ptr<Group> make_mpi_group(const MpiProcess& process, const MpiOptions& options = {});

}  // namespace farskip
