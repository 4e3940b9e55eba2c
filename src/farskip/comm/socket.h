#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "farskip/comm/deadline.h"

namespace farskip {

// Owns a non-blocking TCP socket, which programs started by this one do not inherit: it closes when
// this process ends, however it ends. Thread rule: one thread at a time.
class Socket {
 public:
  Socket() = default;
  explicit Socket(int descriptor) : descriptor_(descriptor) {}
  ~Socket() { close(); }
  Socket(Socket&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}
  Socket& operator=(Socket&& other) noexcept {
    close();
    descriptor_ = std::exchange(other.descriptor_, -1);
    return *this;
  }

  int descriptor() const { return descriptor_; }  // -1 when closed
  bool is_open() const { return descriptor_ >= 0; }
  void close() noexcept;
  // Tells the peer that nothing more comes; reading goes on.
  void finish_writing() noexcept;

 private:
  int descriptor_ = -1;
};

// A socket that listens on one address of this machine; port 0: the system picks one. Throws
// CommError when the address is not this machine's or the port is taken. Resolving a name may take
// as long as the system's resolver lets it.
Socket listen_on(const std::string& address, int port);

// The port that a listening socket got.
int local_port(const Socket& socket);

// The next connection; nothing when none waits.
std::optional<Socket> accept_from(const Socket& listener);

// Connects, trying again until the deadline. Throws CommError when it passes, with the last reason.
Socket connect_to(const std::string& address, int port, const Deadline& deadline);

// "127.0.0.1:4242", or "an unknown peer".
std::string peer_address(const Socket& socket);

// Sends what fits right now and returns how many bytes that was; nothing: the connection is broken.
std::optional<size_t> send_some(const Socket& socket, std::string_view bytes);

// Sends everything. False: the connection is broken, or the deadline passed.
bool send_all(const Socket& socket, std::string_view bytes, const Deadline& deadline);

// What has arrived, at most 64 KiB; empty: nothing yet. Nothing: the peer closed the connection or
// it is broken.
std::optional<std::string> receive_some(const Socket& socket);

}  // namespace farskip
