#pragma once

#include <ATen/core/Tensor.h>

#include <chrono>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "farskip/base/error.h"

namespace farskip {

using Clock = std::chrono::steady_clock;

// Names one collective of a step; all ranks must use the same one. Usually the op id.
using Tag = int64_t;

// When a collective was posted by this rank, when its last rank entered (its time starts there),
// and when its result was complete on this rank.
struct WorkTimes {
  Clock::time_point posted, started, finished;
};

// A collective under way. A handle: copies share one state, which keeps the tensors alive.
// Thread rule: any thread may call any member.
class Work {
 public:
  // What a backend implements; see local.cpp.
  class State;
  Work() = default;
  explicit Work(std::shared_ptr<State> state) : state_(std::move(state)) {}

  bool valid() const { return state_ != nullptr; }
  bool done() const;                 // finished or failed; never blocks
  std::exception_ptr error() const;  // set if it failed
  // Blocks until done or the group's deadline passes. Throws CommError.
  void synchronize() const;
  // Valid once done without error.
  WorkTimes times() const;

 private:
  std::shared_ptr<State> state_;
};

class Work::State {
 public:
  virtual ~State() = default;
  virtual bool done() const = 0;
  virtual std::exception_ptr error() const = 0;
  virtual void synchronize() = 0;
  virtual WorkTimes times() const = 0;
};

// Row counts per rank of the group: rows[r] goes to, or comes from, rank r along dimension 0.
using Rows = std::span<const int64_t>;

// Bytes of completed collectives between this rank and others (its own share not counted): for
// all_to_all by the row counts that really moved, else by the ring formulas of count_bytes in
// collective.h.
struct Traffic {
  int64_t bytes_sent = 0;
  int64_t bytes_received = 0;
  int64_t collectives = 0;
};

// A group of ranks that communicate. One Group object per rank. Collectives return at once; they
// run in the order in which the rank posts them. The caller allocates outputs, and neither inputs
// nor outputs may be touched until the Work is done. Tensors are contiguous.
// Thread rule: collectives from one thread at a time; abort from any.
// Every collective throws CommError if the group has failed, and UsageError-like CommError for
// shapes that do not fit. A failed group stays failed.
class Group {
 public:
  virtual ~Group() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;

  // out [sum(out_rows), ...], in [sum(in_rows), ...]: in_rows[r] rows go to rank r.
  virtual Work all_to_all(at::Tensor out, at::Tensor in, Rows out_rows, Rows in_rows, Tag tag) = 0;
  // out [size * n, ...] from in [n, ...] of every rank, in rank order.
  virtual Work all_gather(at::Tensor out, at::Tensor in, Tag tag) = 0;
  // out [n, ...] = sum over ranks, in rank order, of their in [size * n, ...], this rank's part.
  virtual Work reduce_scatter(at::Tensor out, at::Tensor in, Tag tag) = 0;
  // out = sum over ranks of in, added in rank order (same bits on every rank). May be in place.
  virtual Work all_reduce(at::Tensor out, at::Tensor in, Tag tag) = 0;
  // tensor of rank `root` to all, in place.
  virtual Work broadcast(at::Tensor tensor, int root, Tag tag) = 0;
  virtual Work barrier(Tag tag) = 0;

  // Fails the whole group with `error`: pending and later Works on every rank throw it.
  virtual void abort(const CommError& error) noexcept = 0;
  virtual Traffic traffic() const = 0;
  // One line for people: backend and settings, e.g. "throttled(2.0 GB/s, 50 us) over local".
  virtual std::string describe() const = 0;
};

}  // namespace farskip
