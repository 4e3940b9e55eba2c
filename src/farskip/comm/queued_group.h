#pragma once

#include <c10/core/StreamGuard.h>

#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "farskip/comm/exchange.h"
#include "farskip/comm/hook.h"
#include "farskip/comm/queued_work.h"

namespace farskip {

struct QueuedGroupOptions {
  // Keeps the communication thread of rank r on usable core r (round-robin).
  bool pin_thread = false;
};

// A group whose communication thread carries out posted collectives one after the
// other: what the local, mpi and loopback backends share. How ranks meet and bytes move is the
// exchange's. On a device the thread waits for a collective's input to be ready, so that whoever
// posts it need not. Work::wait blocks the host there as on a CPU: a stream that were held until
// the host lets it go on would deadlock with any call in which the driver waits for the device.
//
// A rank enters a collective once it has posted it and its previous one is complete, on an emulated
// link: is due. (A link's lateness is not passed on to the next collective, which may thus start a
// little before the last one was seen to finish.)
class QueuedGroup final : public HookableGroup {
 public:
  explicit QueuedGroup(std::shared_ptr<Exchange> exchange, QueuedGroupOptions options = {});
  ~QueuedGroup() override;

  int rank() const override { return exchange_->rank(); }
  int size() const override { return exchange_->size(); }
  at::Device device() const override { return exchange_->device(); }
  c10::Stream stream() const override { return stream_; }

  void abort(const CommError& error) noexcept override { exchange_->fail(error.what()); }
  Traffic traffic() const override;
  std::string describe() const override;

  void add_hook(std::shared_ptr<Hook> hook) override;
  const std::vector<std::shared_ptr<Hook>>& hooks() const override { return hooks_; }

 private:
  Work post(Collective collective) override;
  void run(bool pin_thread);
  std::shared_ptr<QueuedWork> next();
  void attend();
  void carry_out(QueuedWork& work);
  bool complete(QueuedWork& work);  // false: the group has failed
  // When this rank enters, having waited for that; nothing: the group has failed.
  std::optional<Clock::time_point> delay_entry(const QueuedWork& work);
  bool await_input(const QueuedWork& work);  // false: the group has failed
  c10::OptionalStreamGuard use_own_stream() const;
  Event mark() const;
  void ask_for_precision();
  void count(const Passage& passage);

  const std::shared_ptr<Exchange> exchange_;
  const c10::Stream stream_;                  // on a device: where this group moves bytes
  std::vector<std::shared_ptr<Hook>> hooks_;  // fixed once a collective was posted
  bool precise_ = false;                      // communication thread: priority was asked for
  Clock::time_point free_at_{};               // communication thread: when it may enter again

  mutable std::mutex mutex_;  // guards the rest
  std::condition_variable changed_;
  std::deque<std::shared_ptr<QueuedWork>> queue_;
  int64_t posted_ = 0, settled_ = 0;
  int64_t messages_ = 0;  // of those posted
  bool stopping_ = false;
  Traffic traffic_;

  std::thread thread_;  // last: starts when everything else is there
};

}  // namespace farskip
