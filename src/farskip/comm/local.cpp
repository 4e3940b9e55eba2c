#include "farskip/comm/local.h"

#include <algorithm>

#include "farskip/comm/device_transfer.h"
#include "farskip/comm/queued_group.h"
#include "farskip/comm/rendezvous.h"
#include "farskip/comm/transfer.h"

namespace farskip {
namespace {

// Copies what the rank receives straight from the senders' inputs.
class LocalExchange final : public Exchange {
 public:
  LocalExchange(int rank, int size, std::shared_ptr<Rendezvous> rendezvous, at::Device device)
      : Exchange(rank, size, rendezvous->deadline(), device), rendezvous_(std::move(rendezvous)) {}

  std::string describe() const override { return "local"; }
  std::string failure() const override { return rendezvous_->failure(); }
  void fail(const std::string& reason) noexcept override { rendezvous_->fail(reason); }
  void give_up(const Collective& part, int64_t index, Clock::duration elapsed) noexcept override {
    rendezvous_->give_up(part, elapsed);
  }
  void leave(bool unfinished) noexcept override { rendezvous_->leave(rank(), unfinished); }

  std::optional<Clock::time_point> enter(const Collective& part, int64_t index,
                                         Clock::time_point entry) override {
    meeting_ = rendezvous_->enter(part, index, entry);
    if (!meeting_) return std::nullopt;
    return meeting_->started;
  }
  bool finish() override {
    if (device().is_cpu()) {
      transfer(meeting_->parts, rank());
    } else {
      device_transfer(meeting_->parts, rank());
      // The other ranks may let go of their inputs once this one has said that it is done.
      await_device();
    }
    rendezvous_->finish_transfer(*meeting_, rank());
    return true;
  }
  std::optional<Clock::time_point> pass_message(const Collective& part,
                                                Clock::time_point entry) override {
    if (part.kind == CollectiveKind::send) {
      at::Tensor copy = part.in.clone();
      await_device();
      rendezvous_->leave_message(part, std::move(copy));
      return entry;
    }
    const std::optional<at::Tensor> sent = rendezvous_->take_message(part);
    if (!sent) return std::nullopt;
    const Clock::time_point there = Clock::now();
    at::Tensor(part.out).copy_(*sent);
    await_device();
    return std::max(entry, there);
  }
  bool pause(Clock::time_point time) override { return rendezvous_->pause(rank(), time); }

 private:
  void await_device() const { Event::record_current(device()).synchronize(); }

  const std::shared_ptr<Rendezvous> rendezvous_;
  std::shared_ptr<Meeting> meeting_;  // communication thread: the one entered last
};

}  // namespace

std::vector<std::unique_ptr<Group>> make_local_groups(int ranks, LocalOptions options) {
  if (ranks < 1 || ranks > 256) {
    throw UsageError("wrong number of ranks",
                     {.expected = "1 to 256", .found = std::to_string(ranks)});
  }
  const auto rendezvous = std::make_shared<Rendezvous>(ranks, checked_deadline(options.deadline));
  std::vector<std::unique_ptr<Group>> groups;
  for (int rank = 0; rank < ranks; ++rank) {
    groups.push_back(std::make_unique<QueuedGroup>(
        std::make_shared<LocalExchange>(rank, ranks, rendezvous, options.device),
        QueuedGroupOptions{.pin_thread = options.pin_threads}));
  }
  return groups;
}

}  // namespace farskip
