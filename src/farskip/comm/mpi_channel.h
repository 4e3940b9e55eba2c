#pragma once

#include <mpi.h>

#include <list>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "farskip/comm/mpi_job.h"
#include "farskip/comm/mpi_message.h"

namespace farskip {

// Messages between the ranks of a communicator, apart from its tensors by their MPI tag. Those of
// one sender arrive in order. Nothing blocks. Thread rule: one thread at a time. Throws CommError
// where MPI fails.
class MpiChannel {
 public:
  MpiChannel(MPI_Comm communicator, int tag);

  void send(int to, const MpiMessage& message);
  // To every rank but this one.
  void send_to_all(const MpiMessage& message);

  struct Received {
    int source = 0;
    MpiMessage message;
  };
  // The next message, if one is there.
  std::optional<Received> receive();

  // Whether everything sent is out of this rank's hands.
  bool sent();
  // What is not sent yet is left to MPI, its memory to the job. The last call.
  void close(MpiJob& job) noexcept;

 private:
  struct Letter {
    MPI_Request request = MPI_REQUEST_NULL;
    int peer = 0;
    std::string bytes;
  };
  using Letters = std::list<std::shared_ptr<Letter>>;

  static bool done(Letter& letter);
  void accept_arrivals();

  const MPI_Comm communicator_;
  const int tag_;
  int rank_ = 0, size_ = 0;
  Letters outgoing_, incoming_;
};

}  // namespace farskip
