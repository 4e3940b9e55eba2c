#pragma once

#include <c10/core/Stream.h>

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <thread>

#include "farskip/cuda/stream_gate.h"

namespace farskip {

// Lets a GPU stream go on at the pace of an emulated link: a host thread asks the clock and opens a
// gate, so no multiprocessor is held. The thread keeps a core busy while the stream has anything to
// wait for, and never calls CUDA. Throws UnsupportedError in a build without CUDA.
// Thread rule: begin and hold from one thread, release_all from any.
class LinkPacer {
 public:
  LinkPacer();
  ~LinkPacer();  // lets everything go
  LinkPacer(const LinkPacer&) = delete;
  LinkPacer& operator=(const LinkPacer&) = delete;

  // Time counts from when `stream` gets here.
  void begin(const c10::Stream& stream);
  // What is queued on `stream` from now on runs `seconds` after the last begin, or later.
  void hold(const c10::Stream& stream, double seconds);
  // Nothing is held any more, nor from now on.
  void release_all() noexcept;

 private:
  struct Point {
    bool begins = false;  // await the stream's announcement of `number`; else raise the gate to it
    uint32_t number = 0;
    double seconds = 0;  // since the begin
  };
  void run();
  void add(const Point& point);
  void pass(const Point& point);

  cuda::StreamGate gate_;
  uint32_t begun_ = 0, held_ = 0;                // numbers given out
  std::chrono::steady_clock::time_point start_;  // own thread: of the last begin
  std::atomic<bool> released_ = false;

  std::mutex mutex_;  // guards the rest
  std::condition_variable changed_;
  std::deque<Point> points_;
  bool stopping_ = false, waiting_ = false;

  std::thread thread_;  // last: starts when everything else is there
};

}  // namespace farskip
