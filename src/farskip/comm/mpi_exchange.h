#pragma once

#include <mpi.h>

#include <deque>
#include <limits>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "farskip/comm/exchange.h"
#include "farskip/comm/mpi_channel.h"
#include "farskip/comm/mpi_job.h"
#include "farskip/comm/mpi_transfer.h"

namespace farskip {

// The ranks are processes. On entering a collective, a rank sends every other one a header with its
// signature; once it has all headers and they agree it has *committed* itself, and moves bytes.
// A rank whose group fails tells the others why, and the first collective that it takes no part in:
// those that wait for its bytes in that or a later one give up at once. The sender of a message
// tells its receiver of it, and keeps a copy until that has it.
class MpiExchange final : public Exchange {
 public:
  // `communicator` is this group's alone.
  MpiExchange(std::shared_ptr<MpiJob> job, MPI_Comm communicator, Clock::duration deadline,
              int64_t longest_message);

  std::string describe() const override { return "mpi"; }
  std::string failure() const override;
  void fail(const std::string& reason) noexcept override;
  void give_up(const Collective& part, int64_t index, Clock::duration elapsed) noexcept override;
  void leave(bool unfinished) noexcept override;

  std::optional<Clock::time_point> enter(const Collective& part, int64_t index,
                                         Clock::time_point entry) override;
  bool finish() override;
  std::optional<Clock::time_point> pass_message(const Collective& part,
                                                Clock::time_point entry) override;
  bool pause(Clock::time_point time) override;
  std::optional<Clock::duration> attention_interval() const override {
    return std::chrono::milliseconds(1);
  }
  void attend() override;
  void close() noexcept override;

 private:
  static constexpr int64_t kAll = std::numeric_limits<int64_t>::max();
  struct Peer {
    std::deque<MpiHeader> headers;  // of collectives that this rank has not committed itself to
    std::deque<Signature> letters;  // messages of which nothing is received yet
    int64_t takes_part_until = kAll;
    bool left = false;
  };

  // A message under way: a copy of what was sent, so that its sender need not wait.
  struct Outgoing {
    Outgoing(MpiJob& job, Collective sent, MPI_Comm communicator, int64_t longest_message)
        : part(std::move(sent)), transfer(job, part, communicator, longest_message) {}
    const Collective part;
    MpiTransfer transfer;
  };

  void send_message(const Collective& part);
  std::optional<Clock::time_point> receive_message(const Collective& part);
  // Waits for the peer's next message; false: the group has failed.
  bool await_letter(const Collective& part);
  // Whether all messages sent are out of this rank's hands.
  bool messages_sent();
  void handle(const MpiChannel::Received& received);
  void receive();
  void announce_failure();
  // Ranks whose headers for the current collective are not here.
  std::vector<int> missing_ranks() const;
  // Says what give_up has to say from now on.
  void note_waiting(int64_t index, std::string who);
  void check_presence(const Collective& part, const std::vector<int>& missing);
  bool all_take_part(const std::vector<int>& missing) const;
  bool commit(const Signature& own);
  // Whether one of these ranks said that it takes no part in collective `index`.
  bool deserted(const std::vector<int>& needed, int64_t index) const;

  const std::shared_ptr<MpiJob> job_;
  const MPI_Comm communicator_;
  const int64_t longest_message_;

  // Communication thread.
  MpiChannel channel_;
  std::vector<Peer> peers_;
  std::list<Outgoing> outgoing_;
  const Collective* part_ = nullptr;  // the current collective
  int64_t committed_ = 0;             // collectives
  int64_t announced_ = kAll;          // what the others were told of committed_

  mutable std::mutex mutex_;  // guards the rest
  std::string failure_;
  int64_t entered_ = -1;     // the last collective
  std::string waiting_for_;  // in it; empty once its bytes are moved
};

}  // namespace farskip
