#include "farskip/comm/queued_work.h"

#include <thread>

namespace farskip {

QueuedWork::QueuedWork(std::shared_ptr<Exchange> exchange, Collective collective, int64_t index)
    : exchange_(std::move(exchange)),
      collective_(std::move(collective)),
      index_(index),
      posted_(Clock::now()) {}

void QueuedWork::let_tensors_go() {
  collective_.out.reset();
  collective_.in.reset();
}

void QueuedWork::complete(const WorkTimes& times, Event begun, Event ended) {
  let_tensors_go();
  const std::lock_guard lock(mutex_);
  times_ = times;
  begun_ = std::move(begun);
  ended_ = std::move(ended);
  settled_.notify_all();
}

void QueuedWork::fail(const std::string& reason) {
  let_tensors_go();
  const std::lock_guard lock(mutex_);
  failure_ = reason;
  settled_.notify_all();
}

bool QueuedWork::done() const {
  const std::lock_guard lock(mutex_);
  return failure_ || (times_ && Clock::now() >= times_->finished);
}

std::exception_ptr QueuedWork::error() const {
  const std::lock_guard lock(mutex_);
  if (!failure_) return nullptr;
  return std::make_exception_ptr(group_failure(collective_, *failure_));
}

bool QueuedWork::wait_settled(Clock::time_point limit) {
  std::unique_lock lock(mutex_);
  return settled_.wait_until(lock, limit, [&] { return failure_ || times_; });
}

void QueuedWork::synchronize() {
  const Clock::time_point begin = Clock::now();
  const Clock::duration deadline = exchange_->deadline();
  if (!wait_settled(begin + deadline)) {
    exchange_->give_up(collective_, index_, Clock::now() - begin);
    // The communication thread now fails this work as soon as no rank touches its tensors.
    wait_settled(Clock::now() + deadline);
  }
  std::unique_lock lock(mutex_);
  if (failure_) throw group_failure(collective_, *failure_);
  if (!times_) {
    throw CommError("the communication thread does not answer", {.where = collective_.name()});
  }
  const Clock::time_point finished = times_->finished;
  lock.unlock();
  std::this_thread::sleep_until(finished);
}

std::optional<DeviceTimes> QueuedWork::device_times(const Event& origin) const {
  const std::lock_guard lock(mutex_);
  if (!ended_.valid()) return std::nullopt;
  ended_.synchronize();
  return DeviceTimes{begun_.seconds_since(origin), ended_.seconds_since(origin)};
}

WorkTimes QueuedWork::times() const {
  const std::lock_guard lock(mutex_);
  if (failure_) throw group_failure(collective_, *failure_);
  if (!times_) {
    throw CommError("a collective has no times before it is done", {.where = collective_.name()});
  }
  return *times_;
}

}  // namespace farskip
