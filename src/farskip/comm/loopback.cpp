#include "farskip/comm/loopback.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "farskip/base/format.h"
#include "farskip/comm/queued_group.h"
#include "farskip/comm/transfer.h"

namespace farskip {
namespace {

// Rows [from, from + rows) of the input to rows [to, to + rows) of the output.
struct RowCopy {
  int64_t to = 0, from = 0, rows = 0;
};

void copy(const at::Tensor& to, const at::Tensor& from) {
  at::Tensor(to).copy_(from, /*non_blocking=*/true);
}

// What this rank receives from rank `sender`: what it sends to itself, and further rows of its
// input, from the start again behind the end, where that is not as much as it expects.
void append_copies(const Collective& part, int sender, std::vector<RowCopy>& copies) {
  const int64_t available = part.in.size(0);
  int64_t to = rows_before(part.out_rows, sender);
  int64_t left = part.out_rows[static_cast<size_t>(sender)];
  int64_t from = rows_before(part.in_rows, part.rank);
  while (left > 0 && available > 0) {
    from %= available;
    const int64_t rows = std::min(left, available - from);
    copies.push_back({to, from, rows});
    to += rows;
    from += rows;
    left -= rows;
  }
}

// Cuts copies of more than `most` rows.
std::vector<RowCopy> cut(const std::vector<RowCopy>& copies, int64_t most) {
  std::vector<RowCopy> pieces;
  for (RowCopy copy : copies) {
    for (; copy.rows > most; copy.to += most, copy.from += most, copy.rows -= most) {
      pieces.push_back({copy.to, copy.from, most});
    }
    pieces.push_back(copy);
  }
  return pieces;
}

class LoopbackExchange final : public Exchange {
 public:
  LoopbackExchange(const LoopbackOptions& options)
      : Exchange(options.rank, options.ranks, checked_deadline(options.deadline), options.device),
        options_(options),
        incoming_(c10::Stream::DEFAULT, options.device) {
    if (!options.device.is_cpu()) {
      incoming_ = c10::impl::VirtualGuardImpl(options.device.type())
                      .getStreamFromGlobalPool(options.device, true);
    }
  }

  std::string describe() const override {
    const bool device = options_.path == LoopbackPath::device;
    return std::string("loopback(") + (device ? "device" : "pcie") + ", rank " +
           std::to_string(rank()) + " of " + std::to_string(size()) + ", a stand-in)";
  }
  std::string failure() const override {
    const std::lock_guard lock(mutex_);
    return failure_;
  }
  void fail(const std::string& reason) noexcept override {
    const std::lock_guard lock(mutex_);
    if (failure_.empty()) failure_ = reason.empty() ? "no reason given" : reason;
    failed_.notify_all();
  }
  void give_up(const Collective& part, int64_t index, Clock::duration elapsed) noexcept override {
    fail(deadline_error(part, "its input was not ready", deadline(), elapsed).what());
  }
  void leave(bool unfinished) noexcept override {
    if (unfinished) fail("the group was destroyed before its collectives were complete");
  }

  std::optional<Clock::time_point> enter(const Collective& part, int64_t index,
                                         Clock::time_point entry) override {
    part_ = &part;
    entered_ = entry;
    if (!failure().empty()) return std::nullopt;
    return entry;
  }
  bool finish() override;
  bool pause(Clock::time_point time) override {
    std::unique_lock lock(mutex_);
    const auto failed = [&] { return !failure_.empty(); };
    if (time == Clock::time_point::max()) {
      failed_.wait(lock, failed);
    } else {
      failed_.wait_until(lock, time, failed);
    }
    return failure_.empty();
  }

 private:
  bool all_to_all();
  void all_gather();
  bool move_paced(const std::vector<RowCopy>& copies);
  void cross_host(const std::vector<RowCopy>& copies);
  c10::Stream current() const {
    return c10::impl::VirtualGuardImpl(device().type()).getStream(device());
  }

  const LoopbackOptions options_;
  c10::Stream incoming_;  // path pcie: from the host
  at::Tensor staging_;    // path pcie: pinned bytes
  const Collective* part_ = nullptr;
  Clock::time_point entered_{};

  mutable std::mutex mutex_;
  std::condition_variable failed_;
  std::string failure_;
};

bool LoopbackExchange::finish() {
  bool moved = true;
  switch (part_->kind) {
    case CollectiveKind::all_to_all:
      moved = all_to_all();
      break;
    case CollectiveKind::all_gather:
      all_gather();
      break;
    case CollectiveKind::all_reduce:
      copy(part_->out, part_->in * static_cast<int64_t>(size()));
      break;
    case CollectiveKind::reduce_scatter:
      copy(part_->out, part_->in.narrow(0, rank() * part_->out.size(0), part_->out.size(0)) *
                           static_cast<int64_t>(size()));
      break;
    case CollectiveKind::broadcast:
    case CollectiveKind::barrier:
      break;
  }
  if (moved && !device().is_cpu()) Event::record(current()).synchronize();
  return moved;
}

bool LoopbackExchange::all_to_all() {
  const int64_t row = row_bytes(part_->out);
  if (row == 0) return true;
  std::vector<RowCopy> own, arriving;
  append_copies(*part_, rank(), own);
  for (int sender = 0; sender < size(); ++sender) {
    if (sender != rank()) append_copies(*part_, sender, arriving);
  }
  for (const RowCopy& c : own) {
    copy(part_->out.narrow(0, c.to, c.rows), part_->in.narrow(0, c.from, c.rows));
  }
  constexpr int64_t piece_bytes = 2 << 20;
  const std::vector<RowCopy> pieces = cut(arriving, std::max<int64_t>(1, piece_bytes / row));
  if (options_.path == LoopbackPath::device) return move_paced(pieces);
  cross_host(pieces);
  return true;
}

// A piece is copied when the link would have brought the whole of it.
bool LoopbackExchange::move_paced(const std::vector<RowCopy>& copies) {
  const bool paced = options_.link.bytes_per_second > 0;
  const int64_t row = row_bytes(part_->out);
  int64_t arrived = 0;
  for (const RowCopy& c : copies) {
    arrived += c.rows * row;
    if (paced) {
      const double seconds = link_seconds(options_.link, 0, arrived);
      const auto due =
          entered_ + std::chrono::ceil<Clock::duration>(std::chrono::duration<double>(seconds));
      // Sleeping is some 50 us late; the last stretch is spent asking the clock.
      constexpr auto stretch = std::chrono::microseconds(200);
      if (due - Clock::now() > stretch && !pause(due - stretch)) return false;
      while (Clock::now() < due) {
      }
    }
    copy(part_->out.narrow(0, c.to, c.rows), part_->in.narrow(0, c.from, c.rows));
  }
  return true;
}

// Each piece leaves on the current stream and comes back on another one, so that both directions of
// the bus are busy.
void LoopbackExchange::cross_host(const std::vector<RowCopy>& copies) {
  int64_t rows = 0;
  for (const RowCopy& c : copies) rows += c.rows;
  const int64_t bytes = rows * row_bytes(part_->out);
  if (!staging_.defined() || staging_.numel() < bytes) {
    staging_ = at::empty({bytes}, at::TensorOptions(at::kByte).pinned_memory(true));
  }
  std::vector<int64_t> shape = part_->out.sizes().vec();
  shape[0] = rows;
  const at::Tensor host = staging_.narrow(0, 0, bytes).view(part_->out.scalar_type()).view(shape);
  int64_t at = 0;
  for (const RowCopy& c : copies) {
    const at::Tensor place = host.narrow(0, at, c.rows);
    copy(place, part_->in.narrow(0, c.from, c.rows));
    Event::record(current()).block(incoming_);
    const c10::OptionalStreamGuard guard(incoming_);
    copy(part_->out.narrow(0, c.to, c.rows), place);
    at += c.rows;
  }
  Event::record(incoming_).block(current());
}

void LoopbackExchange::all_gather() {
  const int64_t rows = part_->in.size(0);
  for (int sender = 0; sender < size(); ++sender) {
    copy(part_->out.narrow(0, rows * sender, rows), part_->in);
  }
}

}  // namespace

std::unique_ptr<Group> make_loopback_group(const LoopbackOptions& options) {
  if (options.ranks < 1 || options.ranks > 4096 || options.rank < 0 ||
      options.rank >= options.ranks) {
    throw UsageError(
        "a loopback group stands for no such rank",
        {.expected = "1 to 4096 ranks and one of them",
         .found = "rank " + std::to_string(options.rank) + " of " + std::to_string(options.ranks)});
  }
  if (options.path == LoopbackPath::pcie && options.device.is_cpu()) {
    throw UsageError(
        "no bus to cross",
        {.where = "loopback path pcie", .expected = "a GPU", .found = options.device.str()});
  }
  std::vector<std::unique_ptr<Group>> groups;
  groups.push_back(std::make_unique<QueuedGroup>(std::make_shared<LoopbackExchange>(options)));
  const bool paced = options.path == LoopbackPath::device && options.link.bytes_per_second != 0;
  if (paced) groups = make_throttled(std::move(groups), options.link);
  return std::move(groups[0]);
}

}  // namespace farskip
