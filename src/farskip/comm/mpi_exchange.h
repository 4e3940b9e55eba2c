#pragma once

#include <mpi.h>

#include <deque>
#include <limits>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "farskip/comm/exchange.h"
#include "farskip/comm/mpi_channel.h"
#include "farskip/comm/mpi_job.h"

namespace farskip {

// The ranks are processes. On entering a collective, a rank sends every other one a header with its
// signature; once it has all headers and they agree it has *committed* itself, and moves bytes.
// A rank whose group fails tells the others why, and the first collective that it takes no part in:
// those that wait for its bytes in that or a later one give up at once.
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
    int64_t takes_part_until = kAll;
    bool left = false;
  };

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
  const Collective* part_ = nullptr;  // the current collective
  int64_t committed_ = 0;             // collectives
  int64_t announced_ = kAll;          // what the others were told of committed_

  mutable std::mutex mutex_;  // guards the rest
  std::string failure_;
  int64_t entered_ = -1;     // the last collective
  std::string waiting_for_;  // in it; empty once its bytes are moved
};

}  // namespace farskip
