#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>

#include "farskip/comm/bootstrap.h"
#include "farskip/comm/collective.h"
#include "farskip/comm/deadline.h"

namespace farskip {

// Whether one rank's NCCL group has failed, and why; shared with its Works, which may outlive it.
// Thread rule: any thread may call any member.
class GroupStatus {
 public:
  GroupStatus(std::shared_ptr<Bootstrap> bootstrap, std::chrono::duration<double> deadline)
      : bootstrap_(std::move(bootstrap)), deadline_(deadline) {}

  std::chrono::duration<double> deadline() const { return deadline_; }
  // Also looks at what other ranks reported.
  std::optional<std::string> failure();
  // The first reason stays; the other ranks are told.
  void fail(const std::string& reason) noexcept;
  // Throws CommError if the group has failed.
  void check(const Collective& collective);
  // Returns after `pause`, or at once when the group fails or wake was called since the last time.
  void sleep(std::chrono::nanoseconds pause);
  void wake();

 private:
  const std::shared_ptr<Bootstrap> bootstrap_;
  const std::chrono::duration<double> deadline_;
  std::mutex mutex_;  // guards the rest
  std::condition_variable changed_;
  std::optional<std::string> failure_;
  bool woken_ = false;
};

// One collective on a device's stream, between two events there. Whoever looks first, the group's
// watchdog or a caller, finds it done.
// Thread rule: any thread may call any member, once the group has set both events.
class NcclWork final : public Work::State {
 public:
  NcclWork(std::shared_ptr<GroupStatus> status, Collective collective, bool timed);

  // The stream is about to begin with it; the stream has everything of it. Posting thread.
  void begin(Event start) { start_ = std::move(start); }
  void launched(Event end) {
    end_ = std::move(end);
    launched_ = true;
  }
  // Memory that the collective needs until its end. Posting thread.
  void keep(at::Tensor scratch) { scratch_ = std::move(scratch); }

  // Posting thread, until the group lets others see it.
  const Collective& collective() const { return collective_; }
  const CollectiveBytes& bytes() const { return bytes_; }
  // Looks at the device; true: done or failed. A failed one keeps its tensors, since the device may
  // still use them.
  bool look() const;
  bool failed() const;
  // Whether the device is through with the tensors, or failed.
  bool ended() const noexcept;
  // Fails the group if the collective began longer ago than the deadline.
  void check_overdue();

  bool done() const override;
  std::exception_ptr error() const override;
  void synchronize() override;
  void wait(const c10::Stream& stream) override;
  void let_tensors_go() override;
  WorkTimes times() const override;
  std::optional<DeviceTimes> device_times(const Event& origin) const override;

 private:
  void look_locked() const;
  std::string overdue(double seconds) const;

  const std::shared_ptr<GroupStatus> status_;
  mutable Collective collective_;  // its tensors: guarded once the group lets others see it
  const CollectiveBytes bytes_;
  const bool timed_;
  const Clock::time_point posted_;
  mutable at::Tensor scratch_;  // likewise
  Event start_, end_;
  bool launched_ = false;

  mutable std::mutex mutex_;  // guards the rest
  mutable std::optional<Clock::time_point> started_;
  mutable std::optional<WorkTimes> times_;
  mutable std::optional<std::string> failure_;
};

}  // namespace farskip
