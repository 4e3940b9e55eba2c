#include "farskip/comm/nccl_work.h"

#include <thread>

namespace farskip {

std::optional<std::string> GroupStatus::failure() {
  const std::lock_guard lock(mutex_);
  if (!failure_) failure_ = bootstrap_->failure();
  return failure_;
}

void GroupStatus::fail(const std::string& reason) noexcept {
  bootstrap_->fail(reason);
  // What another rank reported first is the reason here too.
  failure();
  wake();
}

void GroupStatus::check(const Collective& collective) {
  if (const auto reason = failure()) throw group_failure(collective, *reason);
}

void GroupStatus::sleep(std::chrono::nanoseconds pause) {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, pause, [&] { return woken_; });
  woken_ = false;
}

void GroupStatus::wake() {
  const std::lock_guard lock(mutex_);
  woken_ = true;
  changed_.notify_all();
}

NcclWork::NcclWork(std::shared_ptr<GroupStatus> status, Collective collective, bool timed)
    : status_(std::move(status)),
      collective_(std::move(collective)),
      bytes_(count_bytes(collective_)),
      timed_(timed),
      posted_(Clock::now()) {}

std::string NcclWork::overdue(double seconds) const {
  return CommError("not done within the deadline",
                   {.where = collective_.name(),
                    .expected = "at most " + std::to_string(status_->deadline().count()) + " s",
                    .found = std::to_string(seconds) + " s since it began here"})
      .what();
}

void NcclWork::look_locked() const {
  if (times_ || failure_) return;
  // Before the events: an abort makes them pass.
  failure_ = status_->failure();
  if (failure_) return;
  try {
    if (!started_ && start_.done()) started_ = Clock::now();
    if (!end_.done()) return;
  } catch (const std::exception& error) {
    status_->fail(collective_.name() + ": the device failed: " + error.what());
    failure_ = status_->failure();
    return;
  }
  const Clock::time_point now = Clock::now();
  times_ = {.posted = posted_, .started = started_.value_or(now), .finished = now};
  collective_.out.reset();
  collective_.in.reset();
  scratch_.reset();
}

bool NcclWork::look() const {
  const std::lock_guard lock(mutex_);
  look_locked();
  return times_ || failure_;
}

bool NcclWork::failed() const {
  const std::lock_guard lock(mutex_);
  return failure_.has_value();
}

bool NcclWork::ended() const noexcept {
  try {
    return !launched_ || end_.done();
  } catch (...) {
    return true;
  }
}

void NcclWork::check_overdue() {
  double seconds = 0;
  {
    const std::lock_guard lock(mutex_);
    if (!started_ || times_ || failure_) return;
    seconds = std::chrono::duration<double>(Clock::now() - *started_).count();
  }
  if (seconds > status_->deadline().count()) status_->fail(overdue(seconds));
}

bool NcclWork::done() const { return look(); }

std::exception_ptr NcclWork::error() const {
  if (!done()) return nullptr;
  const std::lock_guard lock(mutex_);
  return failure_ ? std::make_exception_ptr(group_failure(collective_, *failure_)) : nullptr;
}

void NcclWork::synchronize() {
  const Deadline deadline(status_->deadline());
  for (int looks = 0; !look(); ++looks) {
    if (deadline.passed()) {
      status_->fail(CommError("waited for longer than the deadline",
                              {.where = collective_.name(),
                               .expected = "at most " + std::to_string(deadline.seconds()) + " s",
                               .found = std::to_string(deadline.elapsed_seconds()) + " s"})
                        .what());
      continue;
    }
    if (looks < 100) {
      std::this_thread::yield();
    } else {
      std::this_thread::sleep_for(std::chrono::microseconds(50));
    }
  }
  const std::lock_guard lock(mutex_);
  if (failure_) throw group_failure(collective_, *failure_);
}

void NcclWork::wait(const c10::Stream& stream) {
  if (stream.device().is_cpu()) return synchronize();
  if (look()) {
    const std::lock_guard lock(mutex_);
    if (failure_) throw group_failure(collective_, *failure_);
  }
  end_.block(stream);
}

void NcclWork::let_tensors_go() {
  const std::lock_guard lock(mutex_);
  collective_.out.reset();
  collective_.in.reset();
}

WorkTimes NcclWork::times() const {
  const bool settled = done();
  const std::lock_guard lock(mutex_);
  if (failure_) throw group_failure(collective_, *failure_);
  if (!settled) {
    throw CommError("a collective has no times before it is done", {.where = collective_.name()});
  }
  return *times_;
}

std::optional<DeviceTimes> NcclWork::device_times(const Event& origin) const {
  if (!timed_ || !origin.valid() || !done() || failed()) return std::nullopt;
  return DeviceTimes{start_.seconds_since(origin), end_.seconds_since(origin)};
}

}  // namespace farskip
