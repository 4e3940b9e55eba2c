#pragma once

#include <mpi.h>

#include <cstddef>
#include <memory>
#include <vector>

#include "farskip/comm/collective.h"
#include "farskip/comm/mpi_job.h"

namespace farskip {

// Moves one rank's share of the bytes of one collective, on whose signature all ranks agree, or one
// end of a message, by
// messages straight between the ranks that have something for each other: so it is known who is
// missing, and ranks that share nothing do not wait for each other. Thread rule: one thread.
class MpiTransfer {
 public:
  // `job` and `part` must outlive this. Messages carry at most `longest_message` bytes.
  MpiTransfer(MpiJob& job, const Collective& part, MPI_Comm communicator, int64_t longest_message);
  // Gives up what is not done; memory that MPI may still use goes to the job.
  ~MpiTransfer();
  MpiTransfer(const MpiTransfer&) = delete;
  MpiTransfer& operator=(const MpiTransfer&) = delete;

  // Starts or moves on; true once all is done. Never blocks. Throws CommError where MPI fails.
  bool advance();
  // Ranks on whose messages this one still waits, or that have not taken this one's.
  std::vector<int> open_peers() const;

 private:
  void start();
  void start_all_to_all();
  void start_reduce(int64_t own_bytes);
  void add_up();
  void share_sums();
  void send(int to, const char* bytes, int64_t count);
  void receive(int from, char* bytes, int64_t count);

  MpiJob& job_;
  const Collective& part_;
  const MPI_Comm communicator_;
  const int64_t longest_message_;
  bool started_ = false;
  bool sum_left_ = false;  // reductions: addends are under way
  std::vector<MPI_Request> requests_;
  std::vector<int> peers_;      // of requests_
  std::vector<bool> receives_;  // whether requests_ are
  // Reductions: what each rank has for this one to add up.
  std::vector<std::shared_ptr<std::byte[]>> addends_;
};

}  // namespace farskip
