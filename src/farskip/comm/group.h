#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>
#include <c10/core/Stream.h>

#include <chrono>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "farskip/base/error.h"
#include "farskip/comm/event.h"

namespace farskip {

using Clock = std::chrono::steady_clock;

// Names one collective or message of a step; all its ranks must use the same one. Usually the op
// id.
using Tag = int64_t;

// When a collective was posted by this rank, when its last rank entered (its time starts there),
// and when its result was complete on this rank.
struct WorkTimes {
  Clock::time_point posted, started, finished;
};

struct DeviceTimes {
  double started = 0, finished = 0;  // seconds
};

// A collective under way. A handle: copies share one state. Until it is done, on a device too, its
// tensors are kept alive, whoever holds the handle, unless let_tensors_go says otherwise.
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
  // Blocks the host until done or the group's deadline passes. Throws CommError.
  void synchronize() const;
  // Work queued on `stream` from now on runs behind the collective: a device's stream waits for it,
  // a CPU's host does (synchronize). Throws CommError.
  void wait(const c10::Stream& stream) const;
  // Says that every stream of a device whose memory the tensors lie in runs behind the collective
  // (wait): they need not be kept until it is done. Whoever frees one frees it for what comes
  // later.
  void let_tensors_go() const;
  // Valid once done without error.
  WorkTimes times() const;
  // On a device, seconds from `origin` (timed) to when the transfer started and ended there, once
  // done and if the group was asked to time; nothing otherwise, and on a CPU.
  std::optional<DeviceTimes> device_times(const Event& origin) const;

 private:
  std::shared_ptr<State> state_;
};

class Work::State {
 public:
  virtual ~State() = default;
  virtual bool done() const = 0;
  virtual std::exception_ptr error() const = 0;
  virtual void synchronize() = 0;
  virtual void wait(const c10::Stream& stream) { synchronize(); }
  virtual void let_tensors_go() {}
  virtual WorkTimes times() const = 0;
  virtual std::optional<DeviceTimes> device_times(const Event& origin) const { return {}; }
};

// Row counts per rank of the group: rows[r] goes to, or comes from, rank r along dimension 0.
using Rows = std::span<const int64_t>;

// Bytes to and from other ranks. all_to_all and all_gather: what moves. With n ranks and S bytes in
// the larger tensor: all_reduce 2(n-1)/n S, all_gather and reduce_scatter (n-1)/n S (the ring
// algorithm), broadcast S out of the root and S into each other rank (a pipeline).
struct CollectiveBytes {
  int64_t out = 0, in = 0;
};

// Bytes of completed collectives between this rank and others (its own share not counted): for
// all_to_all by the row counts that really moved, else by the formulas above.
struct Traffic {
  int64_t bytes_sent = 0;
  int64_t bytes_received = 0;
  int64_t collectives = 0;  // and messages
  void add(const CollectiveBytes& bytes) {
    bytes_sent += bytes.out;
    bytes_received += bytes.in;
    ++collectives;
  }
  void add(const Traffic& other) {
    bytes_sent += other.bytes_sent;
    bytes_received += other.bytes_received;
    collectives += other.collectives;
  }
};

struct Collective;

// A group of ranks that communicate. One Group object per rank. Collectives and messages return at
// once; they run in the order in which the rank posts them. The caller allocates outputs, and
// neither inputs nor outputs may be touched until the Work is done. Tensors are contiguous and on
// the group's device. A collective starts no sooner than its input's producer is done: `ready`, on
// a device the point in its stream behind which the input is there. Thread rule: collectives from
// one thread at a time; abort from any. Everything posted throws CommError if the group has failed,
// and for arguments that do not fit; UnsupportedError for a dtype that can not be summed, and for a
// message over a backend that has none. A failed group stays failed.
class Group {
 public:
  virtual ~Group() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  virtual at::Device device() const { return at::kCPU; }
  // The stream on which collectives write their outputs, which are best allocated for it.
  virtual c10::Stream stream() const { return c10::Stream(c10::Stream::DEFAULT, device()); }

  // out [sum(out_rows), ...], in [sum(in_rows), ...]: in_rows[r] rows go to rank r.
  Work all_to_all(at::Tensor out, at::Tensor in, Rows out_rows, Rows in_rows, Tag tag,
                  Event ready = {});
  // out [size * n, ...] from in [n, ...] of every rank, in rank order.
  Work all_gather(at::Tensor out, at::Tensor in, Tag tag, Event ready = {});
  // out [n, ...] = sum over ranks, in rank order, of their in [size * n, ...], this rank's part.
  Work reduce_scatter(at::Tensor out, at::Tensor in, Tag tag, Event ready = {});
  // out = sum over ranks of in, added in rank order (same bits on every rank). May be in place.
  Work all_reduce(at::Tensor out, at::Tensor in, Tag tag, Event ready = {});
  // tensor of rank `root` to all, in place.
  Work broadcast(at::Tensor tensor, int root, Tag tag, Event ready = {});
  Work barrier(Tag tag);

  // Messages: two ranks alone take part. Those from one rank to another are received in the order
  // in which they are sent, each with its tag, shape and dtype. Two ranks may both send to each
  // other and then receive. A send is done once `tensor` may be written again: over local and mpi
  // without waiting for the receiver.
  Work send(at::Tensor tensor, int to, Tag tag, Event ready = {});
  Work receive(at::Tensor tensor, int from, Tag tag, Event ready = {});

  // Fails the whole group with `error`: pending and later Works on every rank throw it.
  virtual void abort(const CommError& error) noexcept = 0;
  virtual Traffic traffic() const = 0;
  // One line for people: backend and settings, e.g. "throttled(2.0 GB/s, 50 us) over local".
  virtual std::string describe() const = 0;

 protected:
  // For a group that hands on what it is asked to carry out.
  static Work post_on(Group& group, Collective collective);

 private:
  // Carries out one rank's part of a collective or message whose arguments were checked.
  virtual Work post(Collective collective) = 0;
  Work submit(Collective collective);
};

}  // namespace farskip
