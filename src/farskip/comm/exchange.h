#pragma once

#include <chrono>
#include <optional>
#include <span>
#include <string>

#include "farskip/comm/collective.h"

namespace farskip {

// How one rank of a QueuedGroup meets the others and moves bytes; what differs between backends.
// Knows whether the group has failed and why; the first reason stays.
// Thread rule: members under "communication thread" are for that thread only, the others for any.
class Exchange {
 public:
  Exchange(int rank, int size, Clock::duration deadline, at::Device device = at::kCPU)
      : rank_(rank), size_(size), deadline_(deadline), device_(device) {}
  virtual ~Exchange() = default;
  Exchange(const Exchange&) = delete;
  Exchange& operator=(const Exchange&) = delete;

  int rank() const { return rank_; }
  int size() const { return size_; }
  Clock::duration deadline() const { return deadline_; }
  at::Device device() const { return device_; }
  virtual std::string describe() const = 0;

  // Why the group failed; empty while it is well.
  virtual std::string failure() const = 0;
  // Fails the group, unless it has failed already.
  virtual void fail(const std::string& reason) noexcept = 0;
  // Fails the group because a wait for `part`, collective `index`, took `elapsed`, and says who was
  // missing.
  virtual void give_up(const Collective& part, int64_t index, Clock::duration elapsed) noexcept = 0;
  // The rank's group object is going away. Fails the group if the rank has `unfinished` collectives
  // or another rank waits for it.
  virtual void leave(bool unfinished) noexcept = 0;

  // Communication thread.

  // Enters collective `index` and blocks until every rank has, with parts that agree. Returns when
  // the last one entered, this one having done so at `entry`. Nothing: the group has failed, also
  // because the ranks disagree or one stays away for the deadline. `part` must stay alive and
  // unchanged until finish returns.
  virtual std::optional<Clock::time_point> enter(const Collective& part, int64_t index,
                                                 Clock::time_point entry) = 0;
  // Moves this rank's share of the bytes of the collective just entered, on a device with the
  // current stream; returns once they are moved. False: it could not be
  // completed, and the group has failed.
  virtual bool finish() = 0;
  // Carries out one end of a message, on a device with the current stream. A send leaves a copy for
  // the receiver; a receive blocks until that is there. Returns when the bytes were there to be
  // moved. Nothing: the group has failed, also because the ends disagree or the sender stays away
  // for the deadline. Throws UnsupportedError where a backend has no messages.
  virtual std::optional<Clock::time_point> pass_message(const Collective& part,
                                                        Clock::time_point entry);
  // Sleeps until `time`; Clock::time_point::max() sleeps until the group fails. False as soon as it
  // does.
  virtual bool pause(Clock::time_point time) = 0;
  // How often `attend` wants to be called while nothing is to be done; nothing: never.
  virtual std::optional<Clock::duration> attention_interval() const { return {}; }
  // Looks after messages from other ranks.
  virtual void attend() {}
  // The last call: no collective follows.
  virtual void close() noexcept {}

 private:
  const int rank_, size_;
  const Clock::duration deadline_;
  const at::Device device_;
};

// Throws UsageError unless it is a positive number of seconds below 1e8.
Clock::duration checked_deadline(std::chrono::duration<double> deadline);

// What is said when a wait for `part` took `elapsed`; `who` says on whom it waited.
CommError deadline_error(const Collective& part, const std::string& who, Clock::duration deadline,
                         Clock::duration elapsed);
// Such a `who`: "rank 1, 3 not entered", or, for none, that all have entered but are not done.
std::string not_entered(std::span<const int> ranks);
// Of a message: the sender is missing.
std::string not_sent(int rank);
// What a backend without messages says.
UnsupportedError no_messages(const Collective& part, const std::string& backend);

}  // namespace farskip
