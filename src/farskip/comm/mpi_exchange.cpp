#include "farskip/comm/mpi_exchange.h"

#include <algorithm>
#include <numeric>
#include <thread>

#include "farskip/comm/mpi_transfer.h"

namespace farskip {
namespace {

constexpr int kMessageTag = 1;
constexpr Clock::duration kLongestPoll = std::chrono::microseconds(200);
// How long a rank that leaves tries to get its last words out.
constexpr Clock::duration kLastWords = std::chrono::seconds(1);

std::string not_done(const std::vector<int>& ranks) {
  std::string text = "bytes from or to rank ";
  for (size_t i = 0; i < ranks.size(); ++i) text += (i ? ", " : "") + std::to_string(ranks[i]);
  return text + " not moved";
}

int rank_in(MPI_Comm communicator) {
  int rank = 0;
  check_mpi(MPI_Comm_rank(communicator, &rank), "MPI_Comm_rank");
  return rank;
}

int size_of(MPI_Comm communicator) {
  int size = 0;
  check_mpi(MPI_Comm_size(communicator, &size), "MPI_Comm_size");
  return size;
}

}  // namespace

MpiExchange::MpiExchange(std::shared_ptr<MpiJob> job, MPI_Comm communicator,
                         Clock::duration deadline, int64_t longest_message)
    : Exchange(rank_in(communicator), size_of(communicator), deadline),
      job_(std::move(job)),
      communicator_(communicator),
      longest_message_(longest_message),
      channel_(communicator, kMessageTag),
      peers_(static_cast<size_t>(size())) {}

std::string MpiExchange::failure() const {
  const std::lock_guard lock(mutex_);
  return failure_;
}

void MpiExchange::fail(const std::string& reason) noexcept {
  job_->mark_failed();
  const std::lock_guard lock(mutex_);
  if (failure_.empty()) failure_ = reason.empty() ? "no reason given" : reason;
}

void MpiExchange::give_up(const Collective& part, int64_t index, Clock::duration elapsed) noexcept {
  std::string who;
  {
    const std::lock_guard lock(mutex_);
    who = waiting_for_;
    if (is_message(part.kind)) {
      who = not_sent(part.root);
    } else if (who.empty()) {
      const int own = rank();
      who = index <= entered_ ? not_entered({}) : not_entered(std::span(&own, 1));
    }
  }
  fail(deadline_error(part, who, deadline(), elapsed).what());
}

void MpiExchange::leave(bool unfinished) noexcept {
  if (!unfinished) return;
  fail("the group of rank " + std::to_string(rank()) +
       " was destroyed before its collectives were complete");
}

void MpiExchange::handle(const MpiChannel::Received& received) {
  Peer& peer = peers_[static_cast<size_t>(received.source)];
  const MpiMessage& message = received.message;
  switch (message.kind) {
    case MpiMessage::Kind::header:
      return peer.headers.push_back(read_header(message, received.source, size()));
    case MpiMessage::Kind::letter:
      return peer.letters.push_back(read_header(message, received.source, size()).part);
    case MpiMessage::Kind::failed:
      for (const int64_t until : message.numbers) peer.takes_part_until = until;
      return fail(message.text);
    case MpiMessage::Kind::left:
      peer.left = true;
      return;
    case MpiMessage::Kind::hello:
      throw CommError("a message makes no sense", {.where = "mpi", .found = "a second hello"});
  }
}

void MpiExchange::announce_failure() {
  if (announced_ <= committed_) return;
  const std::string reason = failure();
  if (reason.empty()) return;
  announced_ = committed_;
  channel_.send_to_all({.kind = MpiMessage::Kind::failed, .numbers = {committed_}, .text = reason});
}

void MpiExchange::receive() {
  channel_.sent();
  messages_sent();
  while (const auto received = channel_.receive()) handle(*received);
}

void MpiExchange::attend() {
  receive();
  announce_failure();
}

std::vector<int> MpiExchange::missing_ranks() const {
  std::vector<int> missing;
  for (int peer = 0; peer < size(); ++peer) {
    if (peer != rank() && peers_[static_cast<size_t>(peer)].headers.empty()) {
      missing.push_back(peer);
    }
  }
  return missing;
}

void MpiExchange::note_waiting(int64_t index, std::string who) {
  const std::lock_guard lock(mutex_);
  entered_ = index;
  waiting_for_ = std::move(who);
}

void MpiExchange::check_presence(const Collective& part, const std::vector<int>& missing) {
  for (const int peer : missing) {
    if (!peers_[static_cast<size_t>(peer)].left) continue;
    fail(part.name() + ": the group of rank " + std::to_string(peer) + " was destroyed");
  }
}

bool MpiExchange::commit(const Signature& own) {
  std::vector<Signature> parts;
  for (int peer = 0; peer < size(); ++peer) {
    if (peer == rank()) {
      parts.push_back(own);
      continue;
    }
    auto& headers = peers_[static_cast<size_t>(peer)].headers;
    if (headers.front().index != committed_) {
      fail("rank " + std::to_string(peer) + " is at another collective: " +
           std::to_string(headers.front().index) + " instead of " + std::to_string(committed_));
      return false;
    }
    parts.push_back(std::move(headers.front().part));
    headers.pop_front();
  }
  if (const auto error = find_disagreement(parts)) {
    fail(error->what());
    return false;
  }
  ++committed_;
  return true;
}

bool MpiExchange::deserted(const std::vector<int>& needed, int64_t index) const {
  return std::any_of(needed.begin(), needed.end(), [&](int peer) {
    return peers_[static_cast<size_t>(peer)].takes_part_until <= index;
  });
}

// Once all have entered it, a collective goes ahead even if the group fails meanwhile, unless a
// rank has said that it does not.
bool MpiExchange::all_take_part(const std::vector<int>& missing) const {
  std::vector<int> all(static_cast<size_t>(size()));
  std::iota(all.begin(), all.end(), 0);
  return missing.empty() && announced_ > committed_ && !deserted(all, committed_);
}

std::optional<Clock::time_point> MpiExchange::enter(const Collective& part, int64_t index,
                                                    Clock::time_point entry) {
  part_ = &part;
  const Signature own = signature_of(part);
  channel_.send_to_all(header_of(own, index));
  const Clock::time_point begin = Clock::now();
  Clock::time_point started = entry;
  std::vector<int> noted = {rank()};  // none of the lists that can come
  for (PollPause pause(kLongestPoll);; pause.sleep()) {
    receive();
    const std::vector<int> missing = missing_ranks();
    if (missing != noted) note_waiting(index, not_entered(missing));
    noted = missing;
    if (all_take_part(missing)) break;
    started = Clock::now();
    check_presence(part, missing);
    if (started - begin > deadline()) {
      fail(deadline_error(part, not_entered(missing), deadline(), started - begin).what());
    }
    announce_failure();
    if (!failure().empty()) return std::nullopt;
  }
  if (!commit(own)) return std::nullopt;
  return started;
}

bool MpiExchange::finish() {
  const Collective& part = *part_;
  MpiTransfer transfer(*job_, part, communicator_, longest_message_);
  const Clock::time_point begin = Clock::now();
  std::vector<int> noted;
  for (PollPause pause(kLongestPoll); !transfer.advance(); pause.sleep()) {
    attend();
    const std::vector<int> open = transfer.open_peers();
    if (open != noted) note_waiting(committed_ - 1, not_done(open));
    noted = open;
    const Clock::duration elapsed = Clock::now() - begin;
    const bool late = elapsed > deadline();
    if (!late && !deserted(open, committed_ - 1)) continue;
    if (late) fail(deadline_error(part, not_done(open), deadline(), elapsed).what());
    --committed_;
    announce_failure();
    return false;
  }
  note_waiting(committed_ - 1, {});
  return true;
}

std::optional<Clock::time_point> MpiExchange::pass_message(const Collective& part,
                                                           Clock::time_point entry) {
  if (part.kind == CollectiveKind::receive) return receive_message(part);
  send_message(part);
  return entry;
}

void MpiExchange::send_message(const Collective& part) {
  Collective copy = part;
  copy.in = part.in.clone();
  channel_.send(part.root, header_of(signature_of(part), 0));
  outgoing_.emplace_back(*job_, std::move(copy), communicator_, longest_message_);
  attend();
}

bool MpiExchange::messages_sent() {
  outgoing_.remove_if([](Outgoing& message) { return message.transfer.advance(); });
  return outgoing_.empty();
}

bool MpiExchange::await_letter(const Collective& part) {
  const Peer& peer = peers_[static_cast<size_t>(part.root)];
  const Clock::time_point begin = Clock::now();
  for (PollPause pause(kLongestPoll);; pause.sleep()) {
    attend();
    if (!failure().empty()) return false;
    if (!peer.letters.empty()) return true;
    if (peer.left) {
      fail(part.name() + ": the group of rank " + std::to_string(part.root) + " was destroyed");
    }
    const Clock::duration elapsed = Clock::now() - begin;
    if (elapsed > deadline()) {
      fail(deadline_error(part, not_sent(part.root), deadline(), elapsed).what());
    }
  }
}

std::optional<Clock::time_point> MpiExchange::receive_message(const Collective& part) {
  if (!await_letter(part)) return std::nullopt;
  std::deque<Signature>& letters = peers_[static_cast<size_t>(part.root)].letters;
  const Signature sent = std::move(letters.front());
  letters.pop_front();
  if (const auto error = find_disagreement(sent, signature_of(part))) {
    fail(error->what());
    announce_failure();
    return std::nullopt;
  }
  const Clock::time_point begin = Clock::now();
  MpiTransfer transfer(*job_, part, communicator_, longest_message_);
  for (PollPause pause(kLongestPoll); !transfer.advance(); pause.sleep()) {
    attend();
    const Clock::duration elapsed = Clock::now() - begin;
    if (elapsed > deadline()) {
      fail(deadline_error(part, not_done({part.root}), deadline(), elapsed).what());
      announce_failure();
    }
    if (!failure().empty()) return std::nullopt;
  }
  return begin;
}

bool MpiExchange::pause(Clock::time_point time) {
  while (true) {
    attend();
    if (!failure().empty()) return false;
    const Clock::time_point now = Clock::now();
    if (now >= time) return true;
    std::this_thread::sleep_until(std::min(time, now + *attention_interval()));
  }
}

void MpiExchange::close() noexcept {
  try {
    attend();
    if (failure().empty()) channel_.send_to_all({.kind = MpiMessage::Kind::left});
    const Clock::time_point last = Clock::now() + kLastWords;
    for (PollPause pause(kLongestPoll); Clock::now() < last; pause.sleep()) {
      const bool told = channel_.sent(), sent = messages_sent();
      if (told && sent) break;
    }
    outgoing_.clear();
  } catch (const std::exception& error) {
    fail(error.what());
  }
  channel_.close(*job_);
  job_->retire(communicator_);
}

}  // namespace farskip
