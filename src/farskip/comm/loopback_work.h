#pragma once

#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "farskip/comm/collective.h"
#include "farskip/comm/link_statistics.h"

namespace farskip {

// What a loopback group shares with its Works, which may outlive it. Any thread.
class LoopbackStatus {
 public:
  LoopbackStatus(const LinkOptions& link, Clock::duration deadline)
      : statistics(link), deadline(deadline) {}

  // Empty while the group is well; the first reason stays.
  std::string failure() const;
  void fail(const std::string& reason) noexcept;
  void count(const CollectiveBytes& bytes);
  Traffic traffic() const;

  LinkStatistics statistics;
  const Clock::duration deadline;

 private:
  mutable std::mutex mutex_;
  std::string failure_;
  Traffic traffic_;
};

// One collective of a loopback group, between two events of its stream (on a CPU: done once
// launched). Thread rule: any thread may call any member, after the group has called launched.
class LoopbackWork final : public Work::State {
 public:
  LoopbackWork(std::shared_ptr<LoopbackStatus> status, Collective collective);

  const Collective& collective() const { return collective_; }
  // Everything is queued between these events; the link asks for `link_seconds`. Posting thread.
  void launched(Event begun, Event ended, double link_seconds);

  bool done() const override;
  std::exception_ptr error() const override;
  void synchronize() override;
  void wait(const c10::Stream& stream) override;
  void let_tensors_go() override;
  WorkTimes times() const override;
  std::optional<DeviceTimes> device_times(const Event& origin) const override;

 private:
  void look() const;  // needs mutex_

  const std::shared_ptr<LoopbackStatus> status_;
  const CollectiveBytes bytes_;
  const Clock::time_point posted_;
  Event begun_, ended_;
  double link_seconds_ = 0;

  mutable std::mutex mutex_;  // guards the rest
  mutable Collective collective_;
  mutable std::optional<WorkTimes> times_;
};

}  // namespace farskip
