#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "farskip/base/environment.h"

namespace farskip {

// Something that must be the same on every rank: "farskip version", "model", ...
struct Fact {
  std::string name, value;
};

// How the processes of a job find each other before there is any other transport, and how one of
// them learns, at any time, that another is gone or has failed. For small messages, a few at start.
// Thread rule: exchanges from one thread at a time, on every rank the same ones in the same order;
// fail, failure and left from any.
// Exchanges throw CommError when the job has failed or a rank does not come within the deadline,
// which fails the job. A failed job stays failed.
class Bootstrap {
 public:
  virtual ~Bootstrap() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;

  // Rank 0's bytes; those of the others are ignored.
  virtual std::string broadcast(std::string_view bytes) = 0;
  // Every rank's bytes, in rank order; all together at most 16 MiB.
  virtual std::vector<std::string> all_gather(std::string_view bytes) = 0;
  virtual void barrier() = 0;

  // Fails the job on every rank: `reason` is what they throw. The first reason stays.
  virtual void fail(const std::string& reason) noexcept = 0;
  // Why the job failed: what a rank reported, or that one is gone. Noticed at once where a process
  // ends, within 11 s where a machine vanishes.
  virtual std::optional<std::string> failure() const = 0;
  // Ranks that have ended in good order, which is no failure.
  virtual std::vector<int> left() const = 0;
};

// Throws CommError on every rank, and fails the job, unless all ranks have the same facts: which
// one differs, the rank and both values. An exchange.
void agree(Bootstrap& bootstrap, std::span<const Fact> facts);

struct BootstrapOptions {
  // How long joining, and each exchange, may last.
  std::chrono::duration<double> deadline{60};
  // Rank 0: called with its port once it listens.
  std::function<void(int port)> listening;
};

// Joins the other processes of the job over TCP: rank 0 listens at place.bind_address
// (place.address if empty), the others connect, trying again until the deadline. Returns once all
// have come and agree on the farskip version. The messages are neither secret nor authenticated:
// for a network that is the job's own. Throws UsageError for a place that is none; CommError for a
// port that is taken, ranks that do not come, come twice, count another number of ranks, or are no
// farskip.
//
// Destroying it says goodbye, in the course of an exception reports a failure; a process that ends
// without counts as failed.
std::unique_ptr<Bootstrap> join_by_sockets(const LaunchPlace& place, BootstrapOptions options = {});

}  // namespace farskip
