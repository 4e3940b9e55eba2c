#include "farskip/comm/control_links.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <exception>

#include "farskip/base/error.h"
#include "farskip/base/threads.h"

namespace farskip {
namespace {

constexpr size_t most_waiting = 2;           // exchange frames of one peer that nobody took yet
constexpr size_t longest_reason = 8192;      // bytes
constexpr std::chrono::seconds farewell{1};  // to send what is queued
constexpr std::chrono::milliseconds linger_time{200};

std::string name(int rank) { return "rank " + std::to_string(rank); }

}  // namespace

ControlLinks::ControlLinks(int rank, std::vector<Connection> connections)
    : rank_(rank),
      uncaught_(std::uncaught_exceptions()),
      wake_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  for (Connection& connection : connections) links_.push_back({std::move(connection), {}, {}});
  thread_ = std::thread([this] { run(); });
}

ControlLinks::~ControlLinks() {
  if (std::uncaught_exceptions() > uncaught_) fail(name(rank_) + " stopped with an error");
  {
    const std::lock_guard lock(mutex_);
    for (Link& link : links_) queue(link, FrameKind::goodbye, {});
    stopping_.emplace(farewell);
  }
  eventfd_write(wake_.descriptor(), 1);
  thread_.join();
}

ControlLinks::Link& ControlLinks::link_to(int peer) {
  return *std::find_if(links_.begin(), links_.end(),
                       [&](const Link& link) { return link.connection.peer == peer; });
}

void ControlLinks::check(int peer) const {
  if (failure_) throw CommError("the job failed", {.where = name(rank_), .found = *failure_});
  if (left_.contains(peer)) {
    throw CommError("a rank has left the job", {.where = name(rank_),
                                                .expected = "the same exchanges on every rank",
                                                .found = name(peer) + " has said goodbye"});
  }
}

void ControlLinks::send(int peer, std::string payload) {
  {
    const std::lock_guard lock(mutex_);
    check(peer);
    queue(link_to(peer), FrameKind::exchange, payload);
  }
  eventfd_write(wake_.descriptor(), 1);
}

std::optional<std::string> ControlLinks::receive(int peer, const Deadline& deadline) {
  std::unique_lock lock(mutex_);
  Link& link = link_to(peer);
  changed_.wait_until(lock, deadline.end(),
                      [&] { return failure_ || !link.inbox.empty() || left_.contains(peer); });
  // What a rank sent before it left still counts.
  if (failure_ || link.inbox.empty()) check(peer);
  if (link.inbox.empty()) return std::nullopt;
  std::string payload = std::move(link.inbox.front());
  link.inbox.pop_front();
  return payload;
}

void ControlLinks::fail(const std::string& reason) noexcept {
  {
    const std::lock_guard lock(mutex_);
    fail_locked(reason);
  }
  eventfd_write(wake_.descriptor(), 1);
}

std::optional<std::string> ControlLinks::failure() const {
  const std::lock_guard lock(mutex_);
  return failure_;
}

std::vector<int> ControlLinks::left() const {
  const std::lock_guard lock(mutex_);
  return {left_.begin(), left_.end()};
}

void ControlLinks::fail_locked(const std::string& reason) {
  if (failure_) return;
  failure_ = reason.substr(0, longest_reason);
  for (Link& link : links_) queue(link, FrameKind::abort, *failure_);
  changed_.notify_all();
}

void ControlLinks::note_left(int rank) {
  left_.insert(rank);
  if (rank_ == 0) {
    const std::string payload = PayloadWriter().number(static_cast<uint64_t>(rank)).take();
    for (Link& link : links_) {
      if (link.connection.peer != rank) queue(link, FrameKind::left, payload);
    }
  }
  changed_.notify_all();
}

void ControlLinks::queue(Link& link, FrameKind kind, const std::string& payload) {
  if (link.connection.socket.is_open()) link.outbox += encode({kind, payload});
}

void ControlLinks::run() {
  name_thread("bootstrap");
  for (Link& link : links_) parse(link);  // what came along with the welcome
  while (serve()) {
  }
  linger();
}

bool ControlLinks::serve() {
  std::vector<pollfd> waiting{{wake_.descriptor(), POLLIN, 0}};
  std::vector<Link*> open;
  int timeout = 1000;
  {
    const std::lock_guard lock(mutex_);
    bool unsent = false;
    for (Link& link : links_) {
      if (!link.connection.socket.is_open()) continue;
      open.push_back(&link);
      const bool writes = !link.outbox.empty();
      unsent = unsent || writes;
      waiting.push_back({link.connection.socket.descriptor(),
                         static_cast<short>(writes ? POLLIN | POLLOUT : POLLIN), 0});
    }
    if (stopping_ && (!unsent || stopping_->passed())) return false;
    if (stopping_) timeout = stopping_->poll_milliseconds();
  }
  poll(waiting.data(), waiting.size(), timeout);
  eventfd_t count = 0;
  eventfd_read(wake_.descriptor(), &count);
  for (size_t i = 0; i < open.size(); ++i) {
    const short events = waiting[i + 1].revents;
    if (events & POLLOUT) write(*open[i]);
    if (events & (POLLIN | POLLHUP | POLLERR) && open[i]->connection.socket.is_open()) {
      read(*open[i]);
    }
  }
  return true;
}

void ControlLinks::write(Link& link) {
  const std::lock_guard lock(mutex_);
  const std::optional<size_t> sent = send_some(link.connection.socket, link.outbox);
  // A broken connection shows when it is read, after the last words that came over it.
  link.outbox.erase(0, sent.value_or(link.outbox.size()));
}

void ControlLinks::read(Link& link) {
  const std::optional<std::string> bytes = receive_some(link.connection.socket);
  if (!bytes) return lose(link, "its connection closed without a goodbye");
  link.connection.parser.feed(*bytes);
  parse(link);
}

void ControlLinks::parse(Link& link) {
  try {
    while (std::optional<Frame> frame = link.connection.parser.next()) {
      take(link, std::move(*frame));
      if (!link.connection.socket.is_open()) return;
    }
  } catch (const CommError& error) {
    lose(link, error.what());
  }
}

void ControlLinks::take(Link& link, Frame frame) {
  const std::lock_guard lock(mutex_);
  const int peer = link.connection.peer;
  switch (frame.kind) {
    case FrameKind::exchange:
      if (link.inbox.size() >= most_waiting) throw CommError("it sends what nobody asked for");
      link.inbox.push_back(std::move(frame.payload));
      changed_.notify_all();
      return;
    case FrameKind::abort:
      return fail_locked(frame.payload);
    case FrameKind::left: {
      PayloadReader reader(frame.payload);
      const uint64_t rank = reader.number();
      reader.finish();
      if (peer != 0 || rank > INT32_MAX) throw CommError("it speaks for another rank");
      return note_left(static_cast<int>(rank));
    }
    case FrameKind::goodbye:
      close_link(link);
      return note_left(peer);
    case FrameKind::hello:
    case FrameKind::welcome:
      break;
  }
  throw CommError("a message of an unexpected kind",
                  {.found = "kind " + std::to_string(static_cast<int>(frame.kind))});
}

void ControlLinks::close_link(Link& link) {
  link.connection.socket.close();
  link.outbox.clear();
}

void ControlLinks::lose(Link& link, const std::string& why) {
  const std::lock_guard lock(mutex_);
  close_link(link);
  fail_locked(name(link.connection.peer) + " is gone: " + why);
}

// Closing a connection with unread bytes would take back what was sent over it: so the peers close
// first, which they do when they read the goodbye.
void ControlLinks::linger() {
  const Deadline deadline(linger_time);
  for (Link& link : links_) link.connection.socket.finish_writing();
  for (Link& link : links_) {
    const Socket& socket = link.connection.socket;
    while (socket.is_open() && !deadline.passed()) {
      pollfd waiting{socket.descriptor(), POLLIN, 0};
      if (poll(&waiting, 1, deadline.poll_milliseconds()) > 0 && !receive_some(socket)) break;
    }
  }
}

}  // namespace farskip
