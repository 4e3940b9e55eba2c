#include "farskip/comm/local.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <deque>
#include <optional>
#include <thread>

#include "farskip/base/threads.h"
#include "farskip/comm/hook.h"
#include "farskip/comm/local_work.h"
#include "farskip/comm/transfer.h"

namespace farskip {
namespace {

class LocalGroup final : public HookableGroup {
 public:
  LocalGroup(int rank, int size, std::shared_ptr<Rendezvous> rendezvous, bool pin_thread)
      : rank_(rank),
        size_(size),
        rendezvous_(std::move(rendezvous)),
        thread_([this, pin_thread] { run(pin_thread); }) {}
  ~LocalGroup() override;

  int rank() const override { return rank_; }
  int size() const override { return size_; }

  void abort(const CommError& error) noexcept override { rendezvous_->fail(error.what()); }
  Traffic traffic() const override;
  std::string describe() const override;

  void add_hook(std::shared_ptr<Hook> hook) override;
  const std::vector<std::shared_ptr<Hook>>& hooks() const override { return hooks_; }

 private:
  Work post(Collective collective) override;
  void run(bool pin_thread);
  std::shared_ptr<LocalWork> next();
  void carry_out(LocalWork& work);
  bool complete(LocalWork& work);  // false: the group has failed
  // When this rank enters, having waited for that; nothing: the group has failed.
  std::optional<Clock::time_point> delay_entry(const LocalWork& work);
  void ask_for_precision();
  void count(const Passage& passage);

  const int rank_, size_;
  const std::shared_ptr<Rendezvous> rendezvous_;
  std::vector<std::shared_ptr<Hook>> hooks_;  // fixed once a collective was posted
  bool precise_ = false;                      // communication thread: priority was asked for
  Clock::time_point free_at_{};               // communication thread: when it may enter again

  mutable std::mutex mutex_;  // guards the rest
  std::condition_variable changed_;
  std::deque<std::shared_ptr<LocalWork>> queue_;
  int64_t posted_ = 0, settled_ = 0;
  bool stopping_ = false;
  Traffic traffic_;

  std::thread thread_;  // last: starts when everything else is there
};

LocalGroup::~LocalGroup() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    rendezvous_->leave(rank_, settled_ < posted_);
    changed_.notify_all();
  }
  thread_.join();
}

Work LocalGroup::post(Collective collective) {
  const std::string failure = rendezvous_->failure();
  if (!failure.empty()) throw group_failure(collective, failure);
  // Lazily copied memory becomes this tensor's own here, on the thread that owns the tensor.
  if (collective.out.defined()) collective.out.mutable_data_ptr();
  const std::lock_guard lock(mutex_);
  auto work = std::make_shared<LocalWork>(rendezvous_, std::move(collective), posted_);
  queue_.push_back(work);
  ++posted_;
  changed_.notify_all();
  return Work(std::move(work));
}

void LocalGroup::run(bool pin_thread) {
  at::set_num_threads(1);
  name_thread("comm " + std::to_string(rank_));
  set_timer_slack(std::chrono::microseconds(1));
  if (pin_thread) {
    const std::vector<int> cores = usable_cores();
    pin_thread_to_core(cores[static_cast<size_t>(rank_) % cores.size()]);
  }
  while (const std::shared_ptr<LocalWork> work = next()) carry_out(*work);
}

std::shared_ptr<LocalWork> LocalGroup::next() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return stopping_ || !queue_.empty(); });
  if (queue_.empty()) return nullptr;
  std::shared_ptr<LocalWork> work = std::move(queue_.front());
  queue_.pop_front();
  return work;
}

void LocalGroup::carry_out(LocalWork& work) {
  try {
    if (complete(work)) return;
  } catch (const std::exception& error) {
    rendezvous_->fail(error.what());
  }
  {
    const std::lock_guard lock(mutex_);
    ++settled_;
  }
  work.fail(rendezvous_->failure());
}

std::optional<Clock::time_point> LocalGroup::delay_entry(const LocalWork& work) {
  Clock::duration delay{};
  for (const auto& hook : hooks_) {
    const Clock::duration more = hook->entry_delay(work.index(), work.collective().tag);
    delay = more > Clock::duration::max() - delay ? Clock::duration::max() : delay + more;
  }
  if (delay <= Clock::duration::zero()) return std::max(work.posted(), free_at_);
  const Clock::time_point now = Clock::now();
  const bool forever = delay > Clock::time_point::max() - now;
  if (!rendezvous_->pause(rank_, forever ? Clock::time_point::max() : now + delay)) return {};
  return Clock::now();
}

void LocalGroup::ask_for_precision() {
  if (precise_ || std::none_of(hooks_.begin(), hooks_.end(),
                               [](const auto& hook) { return hook->needs_precise_timing(); })) {
    return;
  }
  precise_ = true;
  if (!try_real_time_priority()) try_high_priority();
}

bool LocalGroup::complete(LocalWork& work) {
  ask_for_precision();
  const Collective& part = work.collective();
  const CollectiveBytes bytes = count_bytes(part);
  const std::optional<Clock::time_point> entry = delay_entry(work);
  if (!entry) return false;
  const std::shared_ptr<Meeting> meeting = rendezvous_->enter(part, work.index(), *entry);
  if (!meeting) return false;
  transfer(meeting->parts, rank_);
  rendezvous_->finish_transfer(*meeting, rank_);

  const Clock::time_point transferred = Clock::now();
  const Passage passage{.index = work.index(),
                        .tag = part.tag,
                        .bytes_out = bytes.out,
                        .bytes_in = bytes.in,
                        .started = meeting->started};
  Clock::time_point due = passage.started;
  Clock::duration hidden{};
  for (const auto& hook : hooks_) {
    due = std::max(due, hook->due(passage));
    hidden += hook->visibility_delay(work.index());
  }
  if (due > transferred && !rendezvous_->pause(rank_, due)) return false;
  const Clock::time_point finished = Clock::now();
  free_at_ = std::max(due, transferred);
  for (const auto& hook : hooks_) hook->completed(passage, due, finished);
  count(passage);
  work.complete(
      {.posted = work.posted(), .started = passage.started, .finished = finished + hidden});
  return true;
}

void LocalGroup::count(const Passage& passage) {
  const std::lock_guard lock(mutex_);
  ++settled_;
  ++traffic_.collectives;
  traffic_.bytes_sent += passage.bytes_out;
  traffic_.bytes_received += passage.bytes_in;
}

Traffic LocalGroup::traffic() const {
  const std::lock_guard lock(mutex_);
  return traffic_;
}

std::string LocalGroup::describe() const {
  std::string text = "local";
  for (const auto& hook : hooks_) text = hook->describe() + " over " + text;
  return text;
}

void LocalGroup::add_hook(std::shared_ptr<Hook> hook) {
  const std::lock_guard lock(mutex_);
  if (posted_ > 0) {
    throw UsageError("a hook comes too late", {.where = "rank " + std::to_string(rank_),
                                               .expected = "no collective posted yet",
                                               .found = std::to_string(posted_) + " posted"});
  }
  hooks_.push_back(std::move(hook));
}

}  // namespace

std::vector<std::unique_ptr<Group>> make_local_groups(int ranks, LocalOptions options) {
  if (ranks < 1 || ranks > 256) {
    throw UsageError("wrong number of ranks",
                     {.expected = "1 to 256", .found = std::to_string(ranks)});
  }
  const double seconds = options.deadline.count();
  if (!(seconds > 0) || seconds >= 1e8) {
    throw UsageError("wrong deadline", {.expected = "a positive number of seconds below 1e8",
                                        .found = std::to_string(seconds)});
  }
  const auto rendezvous =
      std::make_shared<Rendezvous>(ranks, std::chrono::ceil<Clock::duration>(options.deadline));
  std::vector<std::unique_ptr<Group>> groups;
  for (int rank = 0; rank < ranks; ++rank) {
    groups.push_back(std::make_unique<LocalGroup>(rank, ranks, rendezvous, options.pin_threads));
  }
  return groups;
}

}  // namespace farskip
