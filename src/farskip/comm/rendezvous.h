#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "farskip/comm/collective.h"

namespace farskip {

// One collective in which ranks meet. Fields are guarded by the Rendezvous, except that `parts`
// and `started` stay as they are once every rank has entered.
struct Meeting {
  std::vector<const Collective*> parts;  // by rank; null until that rank enters
  Clock::time_point started{};           // the latest entry
  int entered = 0, transferred = 0;      // ranks
  bool agreed = false;                   // all have entered with parts that agree
};

// Where the communication threads of thread ranks meet: the n-th collective of every rank is one
// meeting. Holds the reason for which the group failed; the first one stays.
// Thread rule: members that take a rank are for its communication thread; the rest for any thread.
class Rendezvous {
 public:
  Rendezvous(int size, Clock::duration deadline);

  Clock::duration deadline() const { return deadline_; }

  // Blocks until every rank has entered its collective `index`, then checks once that they agree.
  // Once they do, every rank transfers, come what may, and calls finish_transfer: until that
  // returns, or enter gives up, `part` stays alive and unchanged. Gives up, with null, when the
  // group fails: also because the ranks disagree, or one stays away for the deadline or has left.
  std::shared_ptr<Meeting> enter(const Collective& part, int64_t index, Clock::time_point entry);

  // Blocks until every rank has called it, which takes no longer than their transfers: so no
  // tensor of a failed collective is touched once its caller learns of it. A collective that got
  // this far has succeeded, even if the group fails meanwhile.
  void finish_transfer(Meeting& meeting, int rank);

  // A message: the sender leaves a tensor that nobody else writes.
  void leave_message(const Collective& part, at::Tensor copy);
  // Blocks until the sender has left this message, and takes it. Gives up, with nothing, when the
  // group fails: also because the ends disagree, or the sender stays away for the deadline or has
  // left without it.
  std::optional<at::Tensor> take_message(const Collective& part);

  // Sleeps until `time`; Clock::time_point::max() sleeps until the group fails. False as soon as it
  // does.
  bool pause(int rank, Clock::time_point time);

  // The rank's group object is going away. Fails the group if the rank has `unfinished` collectives
  // or another rank waits for it; later meetings without this rank fail at once.
  void leave(int rank, bool unfinished) noexcept;

  // Fails the group, unless it has failed already.
  void fail(const std::string& reason) noexcept;

  // Fails the group because a wait for `part` took `elapsed`, and says who was missing.
  void give_up(const Collective& part, Clock::duration elapsed) noexcept;

  // Why the group failed; empty while it is well.
  std::string failure() const;

 private:
  using Lock = std::unique_lock<std::mutex>;

  void wake_all();
  void fail_locked(const std::string& reason);
  std::string late_locked(const Collective& part, const Meeting& meeting,
                          Clock::duration elapsed) const;
  void admit_locked(Meeting& meeting, const Collective& part, int64_t index,
                    Clock::time_point entry);
  void check_agreement_locked(const Meeting& meeting);
  void check_presence_locked(const Meeting& meeting, const Collective& part);

  struct Letter {
    Signature sent;
    at::Tensor tensor;
  };

  const int size_;
  const Clock::duration deadline_;
  mutable std::mutex mutex_;
  std::vector<std::condition_variable> progress_;  // by rank, so that sleepers are left alone
  std::map<int64_t, std::shared_ptr<Meeting>> meetings_;  // those that some rank has not entered
  std::map<std::pair<int, int>, std::deque<Letter>> letters_;  // by sender and receiver
  std::vector<bool> left_;
  std::string failure_;
};

}  // namespace farskip
