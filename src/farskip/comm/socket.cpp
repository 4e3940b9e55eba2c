#include "farskip/comm/socket.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <system_error>
#include <thread>

#include "farskip/base/error.h"

namespace farskip {
namespace {

constexpr std::chrono::duration<double> longest_attempt{2};  // to connect to one address

using Addresses = std::unique_ptr<addrinfo, void (*)(addrinfo*)>;

std::string reason(int error) { return std::generic_category().message(error); }

std::string place(const std::string& address, int port) {
  return address + ":" + std::to_string(port);
}

Addresses resolve(const std::string& address, int port) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const int error = getaddrinfo(address.c_str(), std::to_string(port).c_str(), &hints, &found);
  if (error != 0) {
    throw CommError("this address can not be resolved",
                    {.where = place(address, port),
                     .expected = "a host name or an IP address",
                     .found = gai_strerror(error),
                     .hint = "MASTER_ADDR must name the machine of rank 0"});
  }
  return {found, freeaddrinfo};
}

Socket make_socket(const addrinfo& address) {
  return Socket(socket(address.ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
}

void set_option(const Socket& socket, int level, int name, int value) {
  // All of these improve timing only, so that a refusal does not matter.
  setsockopt(socket.descriptor(), level, name, &value, sizeof value);
}

// A machine that vanished sends nothing more, not even that it closes: the kernel asks it.
void watch_peer(const Socket& socket) {
  set_option(socket, IPPROTO_TCP, TCP_NODELAY, 1);
  set_option(socket, SOL_SOCKET, SO_KEEPALIVE, 1);
  set_option(socket, IPPROTO_TCP, TCP_KEEPIDLE, 5);
  set_option(socket, IPPROTO_TCP, TCP_KEEPINTVL, 2);
  set_option(socket, IPPROTO_TCP, TCP_KEEPCNT, 3);
  set_option(socket, IPPROTO_TCP, TCP_USER_TIMEOUT, 11'000);
}

// A loopback connection to a port on which nobody listens may meet itself.
bool meets_itself(const Socket& socket) {
  sockaddr_storage own{}, peer{};
  socklen_t own_length = sizeof own, peer_length = sizeof peer;
  return getsockname(socket.descriptor(), reinterpret_cast<sockaddr*>(&own), &own_length) == 0 &&
         getpeername(socket.descriptor(), reinterpret_cast<sockaddr*>(&peer), &peer_length) == 0 &&
         own_length == peer_length && std::memcmp(&own, &peer, own_length) == 0;
}

bool wait_writable(const Socket& socket, const Deadline& deadline) {
  pollfd waiting{socket.descriptor(), POLLOUT, 0};
  while (!deadline.passed()) {
    const int ready = poll(&waiting, 1, deadline.poll_milliseconds());
    if (ready > 0) return true;
    if (ready < 0 && errno != EINTR) return false;
  }
  return false;
}

// One attempt; 0 and a connection, or the errno that it met.
int try_connect(const addrinfo& address, const Deadline& deadline, Socket& result) {
  Socket socket = make_socket(address);
  if (!socket.is_open()) return errno;
  if (connect(socket.descriptor(), address.ai_addr, address.ai_addrlen) != 0) {
    if (errno != EINPROGRESS && errno != EINTR) return errno;
    // An address that swallows everything must not use up the time of the next one.
    const Deadline attempt(
        std::min<std::chrono::duration<double>>(deadline.left(), longest_attempt));
    if (!wait_writable(socket, attempt)) return ETIMEDOUT;
    int error = 0;
    socklen_t length = sizeof error;
    getsockopt(socket.descriptor(), SOL_SOCKET, SO_ERROR, &error, &length);
    if (error != 0) return error;
  }
  if (meets_itself(socket)) return ECONNREFUSED;
  watch_peer(socket);
  result = std::move(socket);
  return 0;
}

}  // namespace

void Socket::close() noexcept {
  if (descriptor_ >= 0) ::close(std::exchange(descriptor_, -1));
}

void Socket::finish_writing() noexcept {
  if (descriptor_ >= 0) shutdown(descriptor_, SHUT_WR);
}

Socket listen_on(const std::string& address, int port) {
  const Addresses addresses = resolve(address, port);
  int error = EADDRNOTAVAIL;
  for (const addrinfo* each = addresses.get(); each; each = each->ai_next) {
    Socket socket = make_socket(*each);
    if (socket.is_open()) {
      // A port that an earlier run left a moment ago is free; one on which somebody listens is not.
      set_option(socket, SOL_SOCKET, SO_REUSEADDR, 1);
      if (bind(socket.descriptor(), each->ai_addr, each->ai_addrlen) == 0 &&
          listen(socket.descriptor(), SOMAXCONN) == 0) {
        return socket;
      }
    }
    error = errno;
  }
  const bool taken = error == EADDRINUSE;
  throw CommError(
      taken ? "this port is taken" : "rank 0 can not listen here",
      {.where = place(address, port),
       .expected = taken ? "a free port" : "an address of this machine",
       .found = reason(error),
       .hint = taken ? "set FARSKIP_PORT to a free port on every rank: MASTER_PORT may "
                       "be held by another job, or by torchrun itself"
                     : "MASTER_ADDR must name the machine of rank 0; FARSKIP_BIND names "
                       "another address to listen on"});
}

int local_port(const Socket& socket) {
  sockaddr_storage own{};
  socklen_t length = sizeof own;
  getsockname(socket.descriptor(), reinterpret_cast<sockaddr*>(&own), &length);
  return ntohs(own.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6&>(own).sin6_port
                                         : reinterpret_cast<sockaddr_in&>(own).sin_port);
}

std::optional<Socket> accept_from(const Socket& listener) {
  Socket socket(accept4(listener.descriptor(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
  if (!socket.is_open()) return std::nullopt;
  watch_peer(socket);
  return socket;
}

Socket connect_to(const std::string& address, int port, const Deadline& deadline) {
  const Addresses addresses = resolve(address, port);
  Socket socket;
  auto pause = std::chrono::milliseconds(5);
  int error = ETIMEDOUT;
  while (!deadline.passed()) {
    for (const addrinfo* each = addresses.get(); each; each = each->ai_next) {
      error = try_connect(*each, deadline, socket);
      if (error == 0) return socket;
    }
    std::this_thread::sleep_for(
        std::min(std::chrono::ceil<std::chrono::milliseconds>(deadline.left()), pause));
    pause = std::min(2 * pause, std::chrono::milliseconds(100));
  }
  throw CommError("rank 0 does not answer",
                  {.where = place(address, port),
                   .expected = "a connection within " + std::to_string(deadline.seconds()) + " s",
                   .found = reason(error),
                   .hint = "is rank 0 running, and MASTER_ADDR and MASTER_PORT the same for all?"});
}

std::string peer_address(const Socket& socket) {
  sockaddr_storage peer{};
  socklen_t length = sizeof peer;
  char host[INET6_ADDRSTRLEN], port[8];
  if (getpeername(socket.descriptor(), reinterpret_cast<sockaddr*>(&peer), &length) != 0 ||
      getnameinfo(reinterpret_cast<sockaddr*>(&peer), length, host, sizeof host, port, sizeof port,
                  NI_NUMERICHOST | NI_NUMERICSERV) != 0) {
    return "an unknown peer";
  }
  return std::string(host) + ":" + port;
}

std::optional<size_t> send_some(const Socket& socket, std::string_view bytes) {
  while (true) {
    const ssize_t sent = send(socket.descriptor(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent >= 0) return static_cast<size_t>(sent);
    if (errno == EAGAIN || errno == EWOULDBLOCK) return 0;
    if (errno != EINTR) return std::nullopt;
  }
}

bool send_all(const Socket& socket, std::string_view bytes, const Deadline& deadline) {
  while (!bytes.empty()) {
    const std::optional<size_t> sent = send_some(socket, bytes);
    if (!sent) return false;
    bytes.remove_prefix(*sent);
    if (!bytes.empty() && !wait_writable(socket, deadline)) return false;
  }
  return true;
}

std::optional<std::string> receive_some(const Socket& socket) {
  std::string bytes(64 << 10, '\0');
  while (true) {
    const ssize_t count = recv(socket.descriptor(), bytes.data(), bytes.size(), 0);
    if (count > 0) {
      bytes.resize(static_cast<size_t>(count));
      return bytes;
    }
    if (count == 0) return std::nullopt;
    if (errno == EAGAIN || errno == EWOULDBLOCK) return std::string();
    if (errno != EINTR) return std::nullopt;
  }
}

}  // namespace farskip
