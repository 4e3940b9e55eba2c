#include "farskip/comm/loopback_work.h"

namespace farskip {

std::string LoopbackStatus::failure() const {
  const std::lock_guard lock(mutex_);
  return failure_;
}

void LoopbackStatus::fail(const std::string& reason) noexcept {
  const std::lock_guard lock(mutex_);
  if (failure_.empty()) failure_ = reason.empty() ? "no reason given" : reason;
}

void LoopbackStatus::count(const CollectiveBytes& bytes) {
  const std::lock_guard lock(mutex_);
  traffic_.add(bytes);
}

Traffic LoopbackStatus::traffic() const {
  const std::lock_guard lock(mutex_);
  return traffic_;
}

LoopbackWork::LoopbackWork(std::shared_ptr<LoopbackStatus> status, Collective collective)
    : status_(std::move(status)),
      bytes_(count_bytes(collective)),
      posted_(Clock::now()),
      collective_(std::move(collective)) {}

void LoopbackWork::launched(Event begun, Event ended, double link_seconds) {
  begun_ = std::move(begun);
  ended_ = std::move(ended);
  link_seconds_ = link_seconds;
}

void LoopbackWork::look() const {
  if (times_ || !ended_.done()) return;
  const auto now = Clock::now();
  const double took = ended_.valid() ? ended_.seconds_since(begun_) : 0;
  const auto started =
      now - std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(took));
  times_ = {.posted = posted_, .started = std::max(posted_, started), .finished = now};
  collective_.out.reset();
  collective_.in.reset();
  status_->count(bytes_);
  if (ended_.valid()) status_->statistics.add(bytes_, link_seconds_, took - link_seconds_);
}

bool LoopbackWork::done() const {
  if (!status_->failure().empty()) return true;
  const std::lock_guard lock(mutex_);
  look();
  return times_.has_value();
}

std::exception_ptr LoopbackWork::error() const {
  const std::string failure = status_->failure();
  const std::lock_guard lock(mutex_);
  if (times_ || failure.empty()) return nullptr;
  return std::make_exception_ptr(group_failure(collective_, failure));
}

void LoopbackWork::synchronize() {
  const Clock::time_point begin = Clock::now();
  ended_.await([&] {
    if (Clock::now() - begin > status_->deadline) {
      status_->fail(CommError("the device did not get to it within the deadline",
                              {.where = collective_.name()})
                        .what());
    }
    return !status_->failure().empty();
  });
  done();
  if (const std::exception_ptr failed = error()) std::rethrow_exception(failed);
}

void LoopbackWork::wait(const c10::Stream& stream) {
  if (const std::exception_ptr failed = error()) std::rethrow_exception(failed);
  ended_.block(stream);
}

void LoopbackWork::let_tensors_go() {
  const std::lock_guard lock(mutex_);
  collective_.out.reset();
  collective_.in.reset();
}

WorkTimes LoopbackWork::times() const {
  if (const std::exception_ptr failed = error()) std::rethrow_exception(failed);
  if (!done()) {
    throw CommError("a collective has no times before it is done", {.where = collective_.name()});
  }
  const std::lock_guard lock(mutex_);
  return *times_;
}

std::optional<DeviceTimes> LoopbackWork::device_times(const Event& origin) const {
  if (!ended_.valid() || !origin.valid() || error() || !done()) return std::nullopt;
  return DeviceTimes{begun_.seconds_since(origin), ended_.seconds_since(origin)};
}

}  // namespace farskip
