#pragma once

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "farskip/comm/collective.h"
#include "farskip/comm/exchange.h"

namespace farskip {

// One collective of one rank of a QueuedGroup, from posting to completion.
// Thread rule: any thread, except that collective() is for the communication thread until it calls
// complete or fail, exactly one of which it calls once.
class QueuedWork final : public Work::State {
 public:
  QueuedWork(std::shared_ptr<Exchange> exchange, Collective collective, int64_t index);

  const Collective& collective() const { return collective_; }
  int64_t index() const { return index_; }  // of the rank's collectives, or of its messages
  Clock::time_point posted() const { return posted_; }

  // The Work looks unfinished until times.finished, which may lie ahead. Lets the tensors go. On a
  // device: the events between which the bytes moved.
  void complete(const WorkTimes& times, Event begun = {}, Event ended = {});
  void fail(const std::string& reason);

  bool done() const override;
  std::exception_ptr error() const override;
  void synchronize() override;
  WorkTimes times() const override;
  std::optional<DeviceTimes> device_times(const Event& origin) const override;

 private:
  void let_tensors_go();
  // What synchronize waits for, at most until `limit`; false if that passed.
  bool wait_settled(Clock::time_point limit);

  const std::shared_ptr<Exchange> exchange_;
  Collective collective_;
  const int64_t index_;
  const Clock::time_point posted_;

  mutable std::mutex mutex_;
  std::condition_variable settled_;
  std::optional<WorkTimes> times_;
  Event begun_, ended_;
  // Text, from which each caller gets an error of its own: exceptions share their text by a count
  // that the thread sanitizer does not see.
  std::optional<std::string> failure_;
};

}  // namespace farskip
