#pragma once

#include <condition_variable>
#include <deque>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "farskip/comm/deadline.h"
#include "farskip/comm/frame.h"
#include "farskip/comm/socket.h"

namespace farskip {

// The connections of a job's bootstrap, a star around rank 0, and the thread that alone reads and
// writes them. Rank 0 passes on what concerns everybody: failures and goodbyes.
// Thread rule: any thread may call any member.
class ControlLinks {
 public:
  struct Connection {
    int peer = 0;
    Socket socket;
    FrameParser parser;
  };

  ControlLinks(int rank, std::vector<Connection> connections);
  // Says goodbye, having sent what is queued; takes at most about a second.
  ~ControlLinks();
  ControlLinks(const ControlLinks&) = delete;
  ControlLinks& operator=(const ControlLinks&) = delete;

  // Queues an exchange frame. Throws CommError if the job has failed or the peer has left.
  void send(int peer, std::string payload);
  // The peer's next exchange frame. Throws CommError if the job has failed or the peer has left;
  // nothing when the deadline passed.
  std::optional<std::string> receive(int peer, const Deadline& deadline);

  void fail(const std::string& reason) noexcept;
  std::optional<std::string> failure() const;
  std::vector<int> left() const;

 private:
  struct Link {
    Connection connection;  // control thread; its socket is closed with the mutex held
    std::string outbox;
    std::deque<std::string> inbox;
  };

  void run();
  bool serve();  // false: everything is said
  void linger();
  void read(Link& link);
  void parse(Link& link);
  void write(Link& link);
  void take(Link& link, Frame frame);
  void close_link(Link& link);
  void lose(Link& link, const std::string& why);
  // With the mutex held:
  void fail_locked(const std::string& reason);
  void note_left(int rank);
  void queue(Link& link, FrameKind kind, const std::string& payload);
  Link& link_to(int peer);
  void check(int peer) const;

  const int rank_;
  const int uncaught_;  // exceptions under way when this began
  Socket wake_;         // an eventfd: ends the control thread's poll

  mutable std::mutex mutex_;  // guards the rest
  std::condition_variable changed_;
  std::vector<Link> links_;
  std::optional<std::string> failure_;
  std::set<int> left_;
  std::optional<Deadline> stopping_;

  std::thread thread_;  // last: starts when everything else is there
};

}  // namespace farskip
