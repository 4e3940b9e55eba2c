#include "farskip/comm/rendezvous.h"

#include <algorithm>

#include "farskip/comm/exchange.h"

namespace farskip {
namespace {

std::vector<int> missing_ranks(const Meeting& meeting) {
  std::vector<int> ranks;
  for (size_t rank = 0; rank < meeting.parts.size(); ++rank) {
    if (!meeting.parts[rank]) ranks.push_back(static_cast<int>(rank));
  }
  return ranks;
}

}  // namespace

Rendezvous::Rendezvous(int size, Clock::duration deadline)
    : size_(size),
      deadline_(deadline),
      progress_(static_cast<size_t>(size)),
      left_(static_cast<size_t>(size)) {}

std::shared_ptr<Meeting> Rendezvous::enter(const Collective& part, int64_t index,
                                           Clock::time_point entry) {
  Lock lock(mutex_);
  if (!failure_.empty()) return nullptr;
  std::shared_ptr<Meeting>& place = meetings_[index];
  if (!place) place = std::make_shared<Meeting>();
  const std::shared_ptr<Meeting> meeting = place;
  admit_locked(*meeting, part, index, entry);
  const Clock::time_point begin = Clock::now();
  std::condition_variable& progress = progress_[static_cast<size_t>(part.rank)];
  const bool settled = progress.wait_until(lock, begin + deadline_,
                                           [&] { return meeting->agreed || !failure_.empty(); });
  if (!settled) fail_locked(late_locked(part, *meeting, Clock::now() - begin));
  return meeting->agreed ? meeting : nullptr;
}

void Rendezvous::admit_locked(Meeting& meeting, const Collective& part, int64_t index,
                              Clock::time_point entry) {
  meeting.parts.resize(static_cast<size_t>(size_));
  meeting.parts[static_cast<size_t>(part.rank)] = &part;
  meeting.started = std::max(meeting.started, entry);
  ++meeting.entered;
  check_presence_locked(meeting, part);
  if (meeting.entered < size_) return;
  check_agreement_locked(meeting);
  if (!failure_.empty()) return;
  meeting.agreed = true;
  meetings_.erase(index);
  wake_all();
}

void Rendezvous::check_presence_locked(const Meeting& meeting, const Collective& part) {
  for (size_t rank = 0; rank < left_.size(); ++rank) {
    if (!left_[rank] || meeting.parts[rank]) continue;
    return fail_locked(part.name() + ": the group of rank " + std::to_string(rank) +
                       " was destroyed");
  }
}

void Rendezvous::check_agreement_locked(const Meeting& meeting) {
  std::vector<Signature> signatures;
  for (const Collective* part : meeting.parts) signatures.push_back(signature_of(*part));
  if (const auto error = find_disagreement(signatures)) fail_locked(error->what());
}

void Rendezvous::finish_transfer(Meeting& meeting, int rank) {
  Lock lock(mutex_);
  if (++meeting.transferred == size_) wake_all();
  progress_[static_cast<size_t>(rank)].wait(lock, [&] { return meeting.transferred == size_; });
}

void Rendezvous::leave_message(const Collective& part, at::Tensor copy) {
  const Lock lock(mutex_);
  letters_[{part.rank, part.root}].push_back({signature_of(part), std::move(copy)});
  progress_[static_cast<size_t>(part.root)].notify_all();
}

std::optional<at::Tensor> Rendezvous::take_message(const Collective& part) {
  Lock lock(mutex_);
  std::deque<Letter>& letters = letters_[{part.root, part.rank}];
  const auto sender = static_cast<size_t>(part.root);
  const Clock::time_point begin = Clock::now();
  const bool settled = progress_[static_cast<size_t>(part.rank)].wait_until(
      lock, begin + deadline_,
      [&] { return !letters.empty() || left_[sender] || !failure_.empty(); });
  if (!failure_.empty()) return std::nullopt;
  if (!settled) {
    const Clock::duration elapsed = Clock::now() - begin;
    fail_locked(deadline_error(part, not_sent(part.root), deadline_, elapsed).what());
  } else if (letters.empty()) {
    fail_locked(part.name() + ": the group of rank " + std::to_string(part.root) +
                " was destroyed");
  } else if (auto error = find_disagreement(letters.front().sent, signature_of(part))) {
    fail_locked(error->what());
  }
  if (!failure_.empty()) return std::nullopt;
  at::Tensor tensor = std::move(letters.front().tensor);
  letters.pop_front();
  return tensor;
}

bool Rendezvous::pause(int rank, Clock::time_point time) {
  Lock lock(mutex_);
  std::condition_variable& progress = progress_[static_cast<size_t>(rank)];
  const auto failed = [&] { return !failure_.empty(); };
  if (time == Clock::time_point::max()) {
    progress.wait(lock, failed);
  } else {
    progress.wait_until(lock, time, failed);
  }
  return failure_.empty();
}

void Rendezvous::leave(int rank, bool unfinished) noexcept {
  const Lock lock(mutex_);
  left_[static_cast<size_t>(rank)] = true;
  wake_all();  // who waits for a message of it
  const bool awaited = std::any_of(meetings_.begin(), meetings_.end(), [&](const auto& entry) {
    return !entry.second->parts[static_cast<size_t>(rank)];
  });
  if (unfinished || awaited) {
    fail_locked("the group of rank " + std::to_string(rank) +
                " was destroyed before its collectives were complete");
  }
}

void Rendezvous::fail(const std::string& reason) noexcept {
  const Lock lock(mutex_);
  fail_locked(reason);
}

void Rendezvous::give_up(const Collective& part, Clock::duration elapsed) noexcept {
  const Lock lock(mutex_);
  if (is_message(part.kind)) {
    return fail_locked(deadline_error(part, not_sent(part.root), deadline_, elapsed).what());
  }
  const Meeting none;
  // The oldest open meeting holds up all later ones.
  const Meeting& meeting = meetings_.empty() ? none : *meetings_.begin()->second;
  fail_locked(late_locked(part, meeting, elapsed));
}

std::string Rendezvous::failure() const {
  const Lock lock(mutex_);
  return failure_;
}

void Rendezvous::wake_all() {
  for (std::condition_variable& progress : progress_) progress.notify_all();
}

void Rendezvous::fail_locked(const std::string& reason) {
  if (failure_.empty()) failure_ = reason.empty() ? "no reason given" : reason;
  // Their parts may now go away.
  meetings_.clear();
  wake_all();
}

std::string Rendezvous::late_locked(const Collective& part, const Meeting& meeting,
                                    Clock::duration elapsed) const {
  return deadline_error(part, not_entered(missing_ranks(meeting)), deadline_, elapsed).what();
}

}  // namespace farskip
