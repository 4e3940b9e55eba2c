#include "farskip/comm/queued_group.h"

#include <ATen/Parallel.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>

#include "farskip/base/threads.h"

namespace farskip {
namespace {

c10::Stream communication_stream(at::Device device) {
  if (device.is_cpu()) return c10::Stream(c10::Stream::DEFAULT, device);
  return c10::impl::VirtualGuardImpl(device.type()).getStreamFromGlobalPool(device, true);
}

}  // namespace

QueuedGroup::QueuedGroup(std::shared_ptr<Exchange> exchange, QueuedGroupOptions options)
    : exchange_(std::move(exchange)),
      stream_(communication_stream(exchange_->device())),
      thread_([this, pin = options.pin_thread] { run(pin); }) {}

QueuedGroup::~QueuedGroup() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    exchange_->leave(settled_ < posted_);
    changed_.notify_all();
  }
  thread_.join();
}

Work QueuedGroup::post(Collective collective) {
  const std::string failure = exchange_->failure();
  if (!failure.empty()) throw group_failure(collective, failure);
  // Lazily copied memory becomes this tensor's own here, on the thread that owns the tensor.
  if (collective.out.defined()) collective.out.mutable_data_ptr();
  const std::lock_guard lock(mutex_);
  const bool message = is_message(collective.kind);
  auto work = std::make_shared<QueuedWork>(exchange_, std::move(collective),
                                           message ? messages_ : posted_ - messages_);
  queue_.push_back(work);
  ++posted_;
  messages_ += message;
  changed_.notify_all();
  return Work(std::move(work));
}

void QueuedGroup::run(bool pin_thread) {
  at::set_num_threads(1);
  name_thread("comm " + std::to_string(rank()));
  set_timer_slack(std::chrono::microseconds(1));
  if (pin_thread) {
    const std::vector<int> cores = usable_cores();
    pin_thread_to_core(cores[static_cast<size_t>(rank()) % cores.size()]);
  }
  while (const std::shared_ptr<QueuedWork> work = next()) carry_out(*work);
  exchange_->close();
}

std::shared_ptr<QueuedWork> QueuedGroup::next() {
  std::unique_lock lock(mutex_);
  const auto ready = [&] { return stopping_ || !queue_.empty(); };
  if (const auto interval = exchange_->attention_interval()) {
    while (!changed_.wait_for(lock, *interval, ready)) {
      lock.unlock();
      attend();
      lock.lock();
    }
  } else {
    changed_.wait(lock, ready);
  }
  if (queue_.empty()) return nullptr;
  std::shared_ptr<QueuedWork> work = std::move(queue_.front());
  queue_.pop_front();
  return work;
}

void QueuedGroup::attend() {
  try {
    exchange_->attend();
  } catch (const std::exception& error) {
    exchange_->fail(error.what());
  }
}

void QueuedGroup::carry_out(QueuedWork& work) {
  try {
    if (complete(work)) return;
  } catch (const std::exception& error) {
    exchange_->fail(error.what());
  }
  {
    const std::lock_guard lock(mutex_);
    ++settled_;
  }
  work.fail(exchange_->failure());
}

c10::OptionalStreamGuard QueuedGroup::use_own_stream() const {
  return device().is_cpu() ? c10::OptionalStreamGuard() : c10::OptionalStreamGuard(stream_);
}

Event QueuedGroup::mark() const { return Event::record(stream_, /*timed=*/true); }

bool QueuedGroup::await_input(const QueuedWork& work) {
  const Collective& part = work.collective();
  const Clock::time_point begin = Clock::now();
  return part.ready.await([&] {
    const Clock::duration elapsed = Clock::now() - begin;
    if (elapsed > exchange_->deadline()) exchange_->give_up(part, work.index(), elapsed);
    return !exchange_->failure().empty();
  });
}

std::optional<Clock::time_point> QueuedGroup::delay_entry(const QueuedWork& work) {
  Clock::duration delay{};
  for (const auto& hook : hooks_) {
    const Clock::duration more = hook->entry_delay(work.index(), work.collective().tag);
    delay = more > Clock::duration::max() - delay ? Clock::duration::max() : delay + more;
  }
  if (delay <= Clock::duration::zero()) return std::max(work.posted(), free_at_);
  const Clock::time_point now = Clock::now();
  const bool forever = delay > Clock::time_point::max() - now;
  if (!exchange_->pause(forever ? Clock::time_point::max() : now + delay)) return {};
  return Clock::now();
}

void QueuedGroup::ask_for_precision() {
  if (precise_ || std::none_of(hooks_.begin(), hooks_.end(),
                               [](const auto& hook) { return hook->needs_precise_timing(); })) {
    return;
  }
  precise_ = true;
  if (!try_real_time_priority()) try_high_priority();
}

bool QueuedGroup::complete(QueuedWork& work) {
  ask_for_precision();
  const Collective& part = work.collective();
  const CollectiveBytes bytes = count_bytes(part);
  if (!await_input(work)) return false;
  std::optional<Clock::time_point> entry = delay_entry(work);
  if (!entry) return false;
  // On a device a rank enters when its input is there, not when it was posted.
  if (!device().is_cpu()) entry = Clock::now();
  const bool message = is_message(part.kind);
  std::optional<Clock::time_point> started = entry;
  if (!message) started = exchange_->enter(part, work.index(), *entry);
  if (!started) return false;
  const auto guard = use_own_stream();
  const Event begun = mark();
  if (message) started = exchange_->pass_message(part, *entry);
  if (!started || (!message && !exchange_->finish())) return false;

  const Clock::time_point transferred = Clock::now();
  const Passage passage{
      .index = work.index(), .tag = part.tag, .bytes = bytes, .started = *started};
  Clock::time_point due = passage.started;
  Clock::duration hidden{};
  for (const auto& hook : hooks_) {
    due = std::max(due, hook->due(passage));
    hidden += hook->visibility_delay(work.index());
  }
  if (due > transferred && !exchange_->pause(due)) return false;
  const Clock::time_point finished = Clock::now();
  free_at_ = std::max(due, transferred);
  for (const auto& hook : hooks_) hook->completed(passage, due, finished);
  count(passage);
  work.complete(
      {.posted = work.posted(), .started = passage.started, .finished = finished + hidden}, begun,
      mark());
  return true;
}

void QueuedGroup::count(const Passage& passage) {
  const std::lock_guard lock(mutex_);
  ++settled_;
  traffic_.add(passage.bytes);
}

Traffic QueuedGroup::traffic() const {
  const std::lock_guard lock(mutex_);
  return traffic_;
}

std::string QueuedGroup::describe() const {
  std::string text = exchange_->describe();
  for (const auto& hook : hooks_) text = hook->describe() + " over " + text;
  return text;
}

void QueuedGroup::add_hook(std::shared_ptr<Hook> hook) {
  const std::lock_guard lock(mutex_);
  if (posted_ > 0) {
    throw UsageError("a hook comes too late", {.where = "rank " + std::to_string(rank()),
                                               .expected = "no collective posted yet",
                                               .found = std::to_string(posted_) + " posted"});
  }
  hooks_.push_back(std::move(hook));
}

}  // namespace farskip
