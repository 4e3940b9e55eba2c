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

namespace farskip {
namespace {

// Parts of a collective, so that its bytes are spread over its time.
constexpr int64_t paced_parts = 8, pcie_parts = 32;
constexpr int64_t least_part_bytes = 4 << 20;

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
  const at::Device peer(device.type(), static_cast<c10::DeviceIndex>((device.index() + 1) % count));
  cuda::connect_devices(device, peer);
  return peer;
}

void copy(const at::Tensor& to, const at::Tensor& from) {
  at::Tensor(to).copy_(from, /*non_blocking=*/true);
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
  }
  Traffic traffic() const override { return status_->traffic(); }
  std::string describe() const override;
  LinkStatistics& link_statistics() override { return status_->statistics; }

 private:
  Work post(Collective collective) override;
  void settle();
  void move(const Collective& part, double seconds);
  void all_to_all(const Collective& part, double seconds);
  void copy_rows(const Collective& part, std::span<const RowCopy> copies) const;
  void copy_paced(const Collective& part, const std::vector<RowCopy>& copies, double seconds);
  void cross(const Collective& part, const std::vector<RowCopy>& copies, double seconds);
  void copy_across(const at::Tensor& to, const at::Tensor& from,
                   std::span<const RowCopy> copies) const;

  const LoopbackOptions options_;
  const std::shared_ptr<LoopbackStatus> status_;
  const c10::Stream stream_, incoming_;  // incoming_: what comes back, where bytes cross
  std::unique_ptr<LinkPacer> pacer_;     // null: not paced
  at::Device beyond_ = at::kCPU;         // where bytes cross to
  at::Tensor staging_;                   // bytes there
  std::deque<std::shared_ptr<LoopbackWork>> works_;  // that may be unfinished, in stream order
};

LoopbackGroup::LoopbackGroup(const LoopbackOptions& options)
    : options_(options),
      status_(std::make_shared<LoopbackStatus>(options.link, checked_deadline(options.deadline))),
      stream_(take_stream(options.device)),
      incoming_(take_stream(options.device)) {
  const bool paced = options.link.bytes_per_second != 0 && options.path != LoopbackPath::pcie;
  if (paced) check_link(options.link);
  if (options.path == LoopbackPath::peer) beyond_ = find_peer(options.device);
  if (paced && options.ranks > 1 && !options.device.is_cpu()) {
    pacer_ = std::make_unique<LinkPacer>();
  }
}

std::string LoopbackGroup::describe() const {
  std::string path = options_.path == LoopbackPath::device ? "device"
                     : options_.path == LoopbackPath::peer ? "peer"
                                                           : "pcie";
  if (pacer_) {
    path += ", " + format_bytes(options_.link.bytes_per_second) + "/s, " +
            format_duration(options_.link.latency_seconds);
  }
  return "loopback(" + path + ", rank " + std::to_string(rank()) + " of " + std::to_string(size()) +
         ", a stand-in)";
}

Work LoopbackGroup::post(Collective collective) {
  const std::string failure = status_->failure();
  if (!failure.empty()) throw group_failure(collective, failure);
  // Lazily copied memory becomes this tensor's own here, on the thread that owns the tensor.
  if (collective.out.defined()) collective.out.mutable_data_ptr();
  auto work = std::make_shared<LoopbackWork>(status_, std::move(collective));
  const Collective& part = work->collective();
  const double seconds = pacer_ ? link_seconds(options_.link, count_bytes(part)) : 0;
  const bool on_device = !device().is_cpu();
  const auto guard = on_device ? c10::OptionalStreamGuard(stream_) : c10::OptionalStreamGuard();
  if (on_device) part.ready.block(stream_);
  Event begun = Event::record(stream_, /*timed=*/true);
  move(part, seconds);
  work->launched(std::move(begun), Event::record(stream_, /*timed=*/true), seconds);
  works_.push_back(work);
  settle();
  return Work(std::move(work));
}

// A work lets its tensors go once somebody sees that it is done.
void LoopbackGroup::settle() {
  while (!works_.empty() && works_.front()->done()) works_.pop_front();
}

void LoopbackGroup::move(const Collective& part, double seconds) {
  if (pacer_) pacer_->begin(stream_);
  switch (part.kind) {
    case CollectiveKind::all_to_all:
      all_to_all(part, seconds);
      break;
    case CollectiveKind::all_gather:
      for (int sender = 0; sender < size(); ++sender) {
        copy(part.out.narrow(0, part.in.size(0) * sender, part.in.size(0)), part.in);
      }
      break;
    case CollectiveKind::all_reduce:
      copy(part.out, part.in * static_cast<int64_t>(size()));
      break;
    case CollectiveKind::reduce_scatter:
      copy(part.out, part.in.narrow(0, rank() * part.out.size(0), part.out.size(0)) *
                         static_cast<int64_t>(size()));
      break;
    case CollectiveKind::broadcast:
    case CollectiveKind::barrier:
      break;
  }
  if (pacer_) pacer_->hold(stream_, seconds);
}

void LoopbackGroup::all_to_all(const Collective& part, double seconds) {
  if (row_bytes(part.out) == 0) return;
  const LoopbackCopies copies = loopback_copies(part);
  copy_rows(part, copies.own);
  if (options_.path != LoopbackPath::device) return cross(part, copies.arriving, seconds);
  if (pacer_) return copy_paced(part, copies.arriving, seconds);
  copy_rows(part, copies.arriving);
}

void LoopbackGroup::copy_rows(const Collective& part, std::span<const RowCopy> copies) const {
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

void LoopbackGroup::copy_across(const at::Tensor& to, const at::Tensor& from,
                                std::span<const RowCopy> copies) const {
  if (!beyond_.is_cpu()) return cuda::copy_rows_between_devices(to, from, copies, device());
  for (const RowCopy& c : copies) copy(to.narrow(0, c.to, c.rows), from.narrow(0, c.from, c.rows));
}

// Each part leaves on the group's stream and comes back on another one, so that both directions of
// the path are busy. Paced, the last one must leave in time to be back.
void LoopbackGroup::cross(const Collective& part, const std::vector<RowCopy>& copies,
                          double seconds) {
  const int64_t row = row_bytes(part.out), rows = rows_of(copies), bytes = rows * row;
  if (bytes == 0) return;
  if (!staging_.defined() || staging_.numel() < bytes) {
    const auto options = at::TensorOptions(at::kByte).device(beyond_);
    staging_ = at::empty({bytes}, options.pinned_memory(beyond_.is_cpu()));
  }
  std::vector<int64_t> shape = part.out.sizes().vec();
  shape[0] = rows;
  const at::Tensor beyond = staging_.narrow(0, 0, bytes).view(part.out.scalar_type()).view(shape);
  const int64_t most = part_rows(rows, row, pacer_ ? paced_parts : pcie_parts);
  const CopyParts cut = cut_copies(copies, most);
  const double latency = std::min(seconds, options_.link.latency_seconds);
  const double spread =
      std::max(0.0, 1 - 2.0 * static_cast<double>(most) / static_cast<double>(rows));
  int64_t at = 0;
  for (const auto& rows_together : cut.parts) {
    if (pacer_) {
      const double share = static_cast<double>(at) / static_cast<double>(rows);
      pacer_->hold(stream_, latency + (seconds - latency) * share * spread);
    }
    std::vector<RowCopy> leaving, returning;
    for (const RowCopy& c : rows_together) {
      leaving.push_back({at, c.from, c.rows});
      returning.push_back({c.to, at, c.rows});
      at += c.rows;
    }
    copy_across(beyond, part.in, leaving);
    Event::record(stream_).block(incoming_);
    const c10::OptionalStreamGuard guard(incoming_);
    copy_across(part.out, beyond, returning);
  }
  Event::record(incoming_).block(stream_);
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
