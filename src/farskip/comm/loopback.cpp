#include "farskip/comm/loopback.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>
#include <deque>

#include "farskip/base/format.h"
#include "farskip/comm/exchange.h"
#include "farskip/comm/link_pacer.h"
#include "farskip/comm/loopback_copies.h"
#include "farskip/comm/loopback_work.h"
#include "farskip/cuda/copy.h"
#include "farskip/cuda/peer_link.h"

namespace farskip {
namespace {

// Parts of a collective: so that its bytes are spread over its time, and so that both directions of
// the bus are busy.
constexpr int64_t paced_parts = 8, pcie_parts = 32;
constexpr int64_t least_part_bytes = 4 << 20;
constexpr int64_t few_bytes = 64 << 10;
constexpr size_t unsettled_works = 64;  // of which it is not asked whether they are done

c10::Stream take_stream(at::Device device) {
  if (device.is_cpu()) return c10::Stream(c10::Stream::DEFAULT, device);
  return c10::impl::VirtualGuardImpl(device.type()).getStreamFromGlobalPool(device, true);
}

// The GPU next to `device`.
at::Device find_peer(at::Device device) {
  const c10::DeviceIndex count = c10::impl::VirtualGuardImpl(device.type()).deviceCount();
  if (count < 2) {
    throw UnsupportedError("there is no other GPU to cross to", {.where = "loopback path peer"});
  }
  return {device.type(), static_cast<c10::DeviceIndex>((device.index() + 1) % count)};
}

void copy(const at::Tensor& to, const at::Tensor& from) {
  at::Tensor(to).copy_(from, /*non_blocking=*/true);
}

// Does as if all ranks had this rank's input; of an all_to_all nothing.
void stand_in(const Collective& part) {
  switch (part.kind) {
    case CollectiveKind::all_gather:
      for (int sender = 0; sender < part.size; ++sender) {
        copy(part.out.narrow(0, part.in.size(0) * sender, part.in.size(0)), part.in);
      }
      return;
    case CollectiveKind::all_reduce:
      return copy(part.out, part.in * static_cast<int64_t>(part.size));
    case CollectiveKind::reduce_scatter:
      return copy(part.out, part.in.narrow(0, part.rank * part.out.size(0), part.out.size(0)) *
                                static_cast<int64_t>(part.size));
    case CollectiveKind::all_to_all:
    case CollectiveKind::broadcast:
    case CollectiveKind::barrier:
    case CollectiveKind::send:
    case CollectiveKind::receive:
      return;
  }
}

class LoopbackGroup final : public Group, public LinkBearer {
 public:
  explicit LoopbackGroup(const LoopbackOptions& options);
  ~LoopbackGroup() override { status_->fail("the group was destroyed"); }

  int rank() const override { return options_.rank; }
  int size() const override { return options_.ranks; }
  at::Device device() const override { return options_.device; }
  c10::Stream stream() const override { return stream_; }
  void abort(const CommError& error) noexcept override {
    status_->fail(error.what());
    if (pacer_) pacer_->release_all();
    if (peer_) peer_->release();
  }
  Traffic traffic() const override { return status_->traffic(); }
  std::string describe() const override;
  LinkStatistics& link_statistics() override { return status_->statistics; }

 private:
  Work post(Collective collective) override;
  void settle();
  void move(const Collective& part, double seconds);
  void move_by_peer(const Collective& part, double seconds);
  void move_on_device(const Collective& part, double seconds);
  void copy_rows(const Collective& part, std::span<const RowCopy> copies) const;
  void copy_paced(const Collective& part, const std::vector<RowCopy>& copies, double seconds);
  void cross_bus(const Collective& part, const std::vector<RowCopy>& copies);

  const LoopbackOptions options_;
  const bool paced_;
  const std::shared_ptr<LoopbackStatus> status_;
  const c10::Stream stream_, incoming_;  // incoming_: what comes back over the bus
  EventPool events_;
  std::unique_ptr<LinkPacer> pacer_;                 // path device, paced
  std::unique_ptr<cuda::PeerLink> peer_;             // path peer
  at::Tensor staging_;                               // path pcie: bytes in host memory
  std::deque<std::shared_ptr<LoopbackWork>> works_;  // that may be unfinished, in stream order
};

// Whether there is a link to keep the pace of.
bool is_paced(const LoopbackOptions& options) {
  if (options.link.bytes_per_second == 0 || options.path == LoopbackPath::pcie) return false;
  check_link(options.link);
  return options.ranks > 1 && !options.device.is_cpu();
}

LoopbackGroup::LoopbackGroup(const LoopbackOptions& options)
    : options_(options),
      paced_(is_paced(options)),
      status_(std::make_shared<LoopbackStatus>(options.link, checked_deadline(options.deadline))),
      stream_(take_stream(options.device)),
      incoming_(take_stream(options.device)),
      events_(options.device) {
  if (options.path == LoopbackPath::peer) {
    peer_ = std::make_unique<cuda::PeerLink>(options.device, find_peer(options.device));
  } else if (paced_) {
    pacer_ = std::make_unique<LinkPacer>();
  }
}

std::string LoopbackGroup::describe() const {
  std::string path = options_.path == LoopbackPath::device ? "device"
                     : options_.path == LoopbackPath::peer ? "peer"
                                                           : "pcie";
  if (paced_) {
    path += ", " + format_bytes(options_.link.bytes_per_second) + "/s, " +
            format_duration(options_.link.latency_seconds);
  }
  return "loopback(" + path + ", rank " + std::to_string(rank()) + " of " + std::to_string(size()) +
         ", a stand-in)";
}

Work LoopbackGroup::post(Collective collective) {
  if (is_message(collective.kind)) throw no_messages(collective, describe());
  const std::string failure = status_->failure();
  if (!failure.empty()) throw group_failure(collective, failure);
  // Lazily copied memory becomes this tensor's own here, on the thread that owns the tensor.
  if (collective.out.defined()) collective.out.mutable_data_ptr();
  auto work = std::make_shared<LoopbackWork>(status_, std::move(collective));
  const Collective& part = work->collective();
  const double seconds = paced_ ? link_seconds(options_.link, count_bytes(part)) : 0;
  const bool on_device = !device().is_cpu();
  const auto guard = on_device ? c10::OptionalStreamGuard(stream_) : c10::OptionalStreamGuard();
  if (on_device) part.ready.block(stream_);
  Event begun = events_.record(stream_, /*timed=*/true);
  move(part, seconds);
  work->launched(std::move(begun), events_.record(stream_, /*timed=*/true), seconds);
  works_.push_back(work);
  settle();
  return Work(std::move(work));
}

// A work lets its tensors go once somebody sees that it is done: who posted it, or the group, which
// does not look each time.
void LoopbackGroup::settle() {
  if (!device().is_cpu() && works_.size() < unsettled_works) return;
  while (!works_.empty() && works_.front()->done()) works_.pop_front();
}

void LoopbackGroup::move(const Collective& part, double seconds) {
  if (peer_) return move_by_peer(part, seconds);
  if (pacer_) pacer_->begin(stream_);
  if (part.kind == CollectiveKind::all_to_all) {
    move_on_device(part, seconds);
  } else {
    stand_in(part);
  }
  if (pacer_) pacer_->hold(stream_, seconds);
}

// What stays on this rank is copied while the rest crosses; a few bytes go along, which costs less
// than a launch.
void LoopbackGroup::move_by_peer(const Collective& part, double seconds) {
  LoopbackCopies copies;
  if (part.kind == CollectiveKind::all_to_all) copies = loopback_copies(part);
  if (rows_of(copies.own) > 0 && rows_of(copies.own) * row_bytes(part.out) <= few_bytes) {
    copies.arriving.insert(copies.arriving.end(), copies.own.begin(), copies.own.end());
    copies.own.clear();
  }
  peer_->start(stream_, part.out, part.in, copies.arriving,
               std::min(seconds, options_.link.latency_seconds), seconds);
  copy_rows(part, copies.own);
  stand_in(part);
  peer_->join(stream_);
}

void LoopbackGroup::move_on_device(const Collective& part, double seconds) {
  if (row_bytes(part.out) == 0) return;
  const LoopbackCopies copies = loopback_copies(part);
  copy_rows(part, copies.own);
  if (options_.path == LoopbackPath::pcie) return cross_bus(part, copies.arriving);
  if (pacer_) return copy_paced(part, copies.arriving, seconds);
  copy_rows(part, copies.arriving);
}

void LoopbackGroup::copy_rows(const Collective& part, std::span<const RowCopy> copies) const {
  if (copies.empty()) return;
  if (device().is_cuda()) return cuda::copy_rows_beside_compute(part.out, part.in, copies);
  for (const RowCopy& c : copies) {
    copy(part.out.narrow(0, c.to, c.rows), part.in.narrow(0, c.from, c.rows));
  }
}

// Of the rows that arrive, as many as a part of them should have.
int64_t part_rows(int64_t rows, int64_t row_bytes, int64_t parts) {
  return std::max(std::max<int64_t>(1, least_part_bytes / row_bytes), (rows + parts - 1) / parts);
}

// A part is copied when the link would begin to bring it.
void LoopbackGroup::copy_paced(const Collective& part, const std::vector<RowCopy>& copies,
                               double seconds) {
  const int64_t total = rows_of(copies);
  const CopyParts cut = cut_copies(copies, part_rows(total, row_bytes(part.out), paced_parts));
  const double latency = std::min(seconds, options_.link.latency_seconds);
  int64_t arrived = 0;
  for (const auto& rows : cut.parts) {
    const double share = static_cast<double>(arrived) / static_cast<double>(total);
    pacer_->hold(stream_, latency + (seconds - latency) * share);
    copy_rows(part, rows);
    arrived += rows_of(rows);
  }
}

// Each part leaves on the group's stream and comes back on another one.
void LoopbackGroup::cross_bus(const Collective& part, const std::vector<RowCopy>& copies) {
  const int64_t row = row_bytes(part.out), rows = rows_of(copies), bytes = rows * row;
  if (bytes == 0) return;
  if (!staging_.defined() || staging_.numel() < bytes) {
    staging_ = at::empty({bytes}, at::TensorOptions(at::kByte).pinned_memory(true));
  }
  std::vector<int64_t> shape = part.out.sizes().vec();
  shape[0] = rows;
  const at::Tensor host = staging_.narrow(0, 0, bytes).view(part.out.scalar_type()).view(shape);
  int64_t at = 0;
  for (const auto& together : cut_copies(copies, part_rows(rows, row, pcie_parts)).parts) {
    std::vector<RowCopy> returning;
    for (const RowCopy& c : together) {
      copy(host.narrow(0, at, c.rows), part.in.narrow(0, c.from, c.rows));
      returning.push_back({c.to, at, c.rows});
      at += c.rows;
    }
    events_.record(stream_).block(incoming_);
    const c10::OptionalStreamGuard guard(incoming_);
    for (const RowCopy& c : returning) {
      copy(part.out.narrow(0, c.to, c.rows), host.narrow(0, c.from, c.rows));
    }
  }
  events_.record(incoming_).block(stream_);
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
  if (options.path != LoopbackPath::device && options.device.is_cpu()) {
    throw UsageError("nothing to cross to", {.where = "loopback path peer or pcie",
                                             .expected = "a GPU",
                                             .found = options.device.str()});
  }
  return std::make_unique<LoopbackGroup>(options);
}

}  // namespace farskip
