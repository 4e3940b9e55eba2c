#include "farskip/comm/link_pacer.h"

#include <chrono>
#include <limits>
#include <optional>

#include "farskip/base/error.h"
#include "farskip/base/threads.h"

namespace farskip {
namespace {

using Clock = std::chrono::steady_clock;

constexpr uint32_t most = std::numeric_limits<int32_t>::max();

uint32_t next(uint32_t& number) {
  if (++number < most) return number;
  throw CommError("a paced link has run out of numbers", {.hint = "make a new group"});
}

}  // namespace

LinkPacer::LinkPacer() : thread_([this] { run(); }) {}

LinkPacer::~LinkPacer() {
  release_all();
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    changed_.notify_all();
  }
  thread_.join();
}

void LinkPacer::begin(const c10::Stream& stream) {
  const Point point{.begins = true, .number = next(begun_)};
  add(point);
  gate_.announce(stream, point.number);
}

void LinkPacer::hold(const c10::Stream& stream, double seconds) {
  const Point point{.number = next(held_), .seconds = seconds};
  gate_.hold(stream, point.number);
  add(point);
}

void LinkPacer::release_all() noexcept {
  released_ = true;
  gate_.raise(most);
}

void LinkPacer::add(const Point& point) {
  const std::lock_guard lock(mutex_);
  points_.push_back(point);
  if (waiting_) changed_.notify_all();
}

void LinkPacer::run() {
  name_thread("link pacer");
  set_timer_slack(std::chrono::microseconds(1));
  while (true) {
    std::optional<Point> point;
    {
      std::unique_lock lock(mutex_);
      waiting_ = true;
      changed_.wait(lock, [&] { return stopping_ || !points_.empty(); });
      waiting_ = false;
      if (stopping_) return;
      point = points_.front();
      points_.pop_front();
    }
    pass(*point);
  }
}

void LinkPacer::pass(const Point& point) {
  if (point.begins) {
    while (gate_.announced() < point.number && !released_) std::this_thread::yield();
    start_ = Clock::now();
    return;
  }
  const auto due =
      start_ + std::chrono::ceil<Clock::duration>(std::chrono::duration<double>(point.seconds));
  // Sleeping is some 50 us late; the last stretch is spent asking the clock.
  constexpr auto stretch = std::chrono::microseconds(200);
  while (due - Clock::now() > 2 * stretch && !released_) std::this_thread::sleep_for(stretch);
  while (Clock::now() < due && !released_) {
  }
  gate_.raise(point.number);
}

}  // namespace farskip
