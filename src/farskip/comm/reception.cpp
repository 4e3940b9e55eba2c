#include "farskip/comm/reception.h"

#include <poll.h>

#include <list>
#include <set>

#include "farskip/base/error.h"

namespace farskip {
namespace {

constexpr size_t largest_hello = 64;         // bytes of payload
constexpr size_t most_strangers = 256;       // connections that have not said who they are
constexpr std::chrono::seconds sympathy{1};  // after a failure, for ranks still to hear of it

std::string name(int rank) { return "rank " + std::to_string(rank); }

std::string place_text(const LaunchPlace& place) {
  return place.address + ":" + std::to_string(place.port);
}

// Rank 0's side: lets ranks in one by one, whatever else knocks at the port.
class Reception {
 public:
  Reception(const LaunchPlace& place, const BootstrapOptions& options)
      : place_(place),
        deadline_(options.deadline),
        listener_(listen_on(place.bind_address.empty() ? place.address : place.bind_address,
                            place.port)) {
    if (options.listening) options.listening(local_port(listener_));
  }

  std::vector<ControlLinks::Connection> receive_all();

 private:
  using Connection = ControlLinks::Connection;

  bool complete() const { return static_cast<int>(present_.size()) == place_.size - 1; }
  void wait(const Deadline& deadline);
  void accept_all();
  // False: it is done with, let in or not.
  bool hear(Connection& stranger);
  void let_in(Connection& stranger, const Frame& hello);
  void refuse(Connection& stranger, const std::string& reason);
  // Tells those who came and, for a moment, those who still come, why nothing comes of it.
  [[noreturn]] void give_up(const CommError& error);
  CommError absence() const;

  const LaunchPlace place_;
  const Deadline deadline_;
  const Socket listener_;
  std::list<Connection> strangers_;
  std::vector<Connection> present_;
  std::set<int> ranks_;
  std::optional<CommError> failure_;
  int refused_ = 0, foreign_ = 0;  // connections
  std::string last_foreign_;
};

std::vector<ControlLinks::Connection> Reception::receive_all() {
  while (!complete() && !failure_) {
    if (deadline_.passed()) give_up(absence());
    wait(deadline_);
  }
  if (failure_) give_up(*failure_);
  for (Connection& connection : present_) {
    if (!send_all(connection.socket, encode({FrameKind::welcome, {}}), deadline_)) {
      give_up(CommError("a rank is gone", {.where = name(0),
                                           .expected = name(connection.peer) + " to stay",
                                           .found = "a closed connection"}));
    }
    connection.parser.set_payload_limit(largest_payload);
  }
  return std::move(present_);
}

void Reception::wait(const Deadline& deadline) {
  std::vector<pollfd> waiting{{listener_.descriptor(), POLLIN, 0}};
  for (const Connection& stranger : strangers_) {
    waiting.push_back({stranger.socket.descriptor(), POLLIN, 0});
  }
  poll(waiting.data(), waiting.size(), deadline.poll_milliseconds());
  size_t i = 1;
  for (auto stranger = strangers_.begin(); stranger != strangers_.end(); ++i) {
    const bool stays = waiting[i].revents == 0 || hear(*stranger);
    stranger = stays ? std::next(stranger) : strangers_.erase(stranger);
  }
  if (waiting[0].revents != 0) accept_all();
}

void Reception::accept_all() {
  while (std::optional<Socket> socket = accept_from(listener_)) {
    if (strangers_.size() == most_strangers) strangers_.pop_front();
    strangers_.push_back({-1, std::move(*socket), FrameParser(largest_hello)});
  }
}

bool Reception::hear(Connection& stranger) {
  const std::optional<std::string> bytes = receive_some(stranger.socket);
  if (!bytes) return false;
  stranger.parser.feed(*bytes);
  try {
    const std::optional<Frame> frame = stranger.parser.next();
    if (!frame) return true;
    let_in(stranger, *frame);
  } catch (const CommError& error) {
    if (stranger.parser.is_foreign()) {
      ++foreign_;
      last_foreign_ = peer_address(stranger.socket) + ": " + error.what();
    } else {
      if (!failure_) failure_ = error;
      refuse(stranger, failure_->what());
    }
  }
  return false;
}

void Reception::let_in(Connection& stranger, const Frame& hello) {
  PayloadReader reader(hello.payload);
  const uint64_t rank = reader.number(), size = reader.number();
  reader.finish();
  const std::string from = peer_address(stranger.socket);
  if (hello.kind != FrameKind::hello) {
    throw CommError("a message of an unexpected kind",
                    {.where = from,
                     .expected = "hello",
                     .found = "kind " + std::to_string(static_cast<int>(hello.kind))});
  }
  if (size != static_cast<uint64_t>(place_.size)) {
    throw CommError(
        "ranks disagree on the number of ranks",
        {.where = "rank " + std::to_string(rank) + " at " + from,
         .expected = "WORLD_SIZE " + std::to_string(place_.size) + " as on rank 0",
         .found = "WORLD_SIZE " + std::to_string(size) + " on rank " + std::to_string(rank)});
  }
  if (rank == 0 || rank >= size || ranks_.contains(static_cast<int>(rank))) {
    throw CommError("two processes claim one rank",
                    {.where = "rank " + std::to_string(rank) + " at " + from,
                     .expected = "RANK from 1 to " + std::to_string(size - 1) + ", each once",
                     .found = "a second rank " + std::to_string(rank),
                     .hint = "give every process a RANK of its own"});
  }
  if (failure_) throw *failure_;
  ranks_.insert(static_cast<int>(rank));
  stranger.peer = static_cast<int>(rank);
  present_.push_back(std::move(stranger));
}

void Reception::refuse(Connection& stranger, const std::string& reason) {
  const Deadline moment(sympathy);
  send_all(stranger.socket, encode({FrameKind::abort, reason}), moment);
  stranger.socket.finish_writing();
  ++refused_;
}

void Reception::give_up(const CommError& error) {
  failure_ = error;
  for (Connection& connection : present_) refuse(connection, error.what());
  const Deadline moment(std::min<std::chrono::duration<double>>(sympathy, deadline_.left()));
  while (refused_ < place_.size - 1 && !moment.passed()) wait(moment);
  throw error;
}

CommError Reception::absence() const {
  std::string missing;
  for (int rank = 1; rank < place_.size; ++rank) {
    if (!ranks_.contains(rank)) missing += (missing.empty() ? "" : ", ") + std::to_string(rank);
  }
  std::string found = "nothing from rank " + missing;
  if (foreign_ > 0) {
    found +=
        "; " + std::to_string(foreign_) + " connections of others, the last from " + last_foreign_;
  }
  return CommError("ranks stayed away",
                   {.where = "rank 0 at " + place_text(place_),
                    .expected = std::to_string(place_.size - 1) + " ranks within " +
                                std::to_string(deadline_.seconds()) + " s",
                    .found = found,
                    .hint = "do all ranks run, with the same MASTER_ADDR and MASTER_PORT?"});
}

// The other ranks' side: waits for rank 0's verdict.
ControlLinks::Connection knock(const LaunchPlace& place, const BootstrapOptions& options) {
  const Deadline deadline(options.deadline);
  ControlLinks::Connection rank_zero{0, connect_to(place.address, place.port, deadline),
                                     FrameParser()};
  const std::string hello = PayloadWriter()
                                .number(static_cast<uint64_t>(place.rank))
                                .number(static_cast<uint64_t>(place.size))
                                .take();
  const auto fail = [&](const std::string& summary, const std::string& found) {
    return CommError(summary,
                     {.where = name(place.rank) + " to rank 0 at " + place_text(place),
                      .expected = "a welcome within " + std::to_string(deadline.seconds()) + " s",
                      .found = found});
  };
  send_all(rank_zero.socket, encode({FrameKind::hello, hello}), deadline);
  while (!deadline.passed()) {
    pollfd waiting{rank_zero.socket.descriptor(), POLLIN, 0};
    if (poll(&waiting, 1, deadline.poll_milliseconds()) <= 0) continue;
    const std::optional<std::string> bytes = receive_some(rank_zero.socket);
    if (!bytes) throw fail("rank 0 is gone", "a closed connection");
    rank_zero.parser.feed(*bytes);
    const std::optional<Frame> frame = rank_zero.parser.next();
    if (!frame) continue;
    if (frame->kind == FrameKind::welcome) return rank_zero;
    if (frame->kind == FrameKind::abort) throw fail("the job failed", frame->payload);
    throw fail("a message of an unexpected kind",
               "kind " + std::to_string(static_cast<int>(frame->kind)));
  }
  throw fail("rank 0 let nobody in", "nothing: some rank stayed away");
}

}  // namespace

std::vector<ControlLinks::Connection> connect_ranks(const LaunchPlace& place,
                                                    const BootstrapOptions& options) {
  std::vector<ControlLinks::Connection> connections;
  if (place.size == 1) return connections;
  if (place.rank == 0) return Reception(place, options).receive_all();
  connections.push_back(knock(place, options));
  return connections;
}

}  // namespace farskip
