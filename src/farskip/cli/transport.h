#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "farskip/comm/group.h"
#include "farskip/comm/stages.h"
#include "farskip/comm/throttled.h"

namespace CLI {
class App;
}

namespace farskip {

// How a command's ranks communicate, as its flags say.
struct TransportOptions {
  std::string name = "local";
  std::optional<int> ranks;  // --ranks
  int default_ranks = 1;     // local; over mpi the job's size counts
  double deadline = 60;      // seconds
  bool pin_threads = false;  // rank r on core r, round-robin
  int threads = 1;           // compute threads of each rank
  std::string device = "cpu";
  int loopback_ranks = 8;  // loopback: ranks that this one stands for
  std::string loopback_path = "device";
  int free_multiprocessors = 0;
};

// Adds --transport, --ranks, --threads, --device, --deadline and what loopback needs;
// FARSKIP_THREADS and FARSKIP_DEADLINE_S are defaults. `options` must outlive the parse.
void add_transport_options(CLI::App& command, TransportOptions& options, int most_ranks);

// The ranks of a command, and those of them that this process holds.
struct Ranks {
  int size = 1;
  std::vector<int> here;                       // ascending
  std::vector<std::unique_ptr<Group>> groups;  // of `here`
  at::Device device = at::kCPU;
  // Opens groups of `here`. Only where `has_links` is true it looks at the link.
  std::function<std::vector<std::unique_ptr<Group>>(const std::optional<LinkOptions>&)> open;
  bool has_links = false;
  // Opens groups of `here` for a pipeline; not set where the transport has none.
  std::function<std::vector<StageRank>(int stages)> open_stages;
  // The groups, or, once they were taken, new ones, with an emulated link where one is asked for.
  // Collective.
  std::vector<std::unique_ptr<Group>> take_groups(const std::optional<LinkOptions>& link = {});
  // The ranks in as many pipeline stages: the groups, for one. Collective. Throws UsageError for
  // stages that do not divide them, UnsupportedError for a transport without messages.
  std::vector<StageRank> take_stages(int stages);
  // Whether this process holds rank 0, which writes and prints results.
  bool first() const { return here.front() == 0; }
};

// Opens the transport, runs `work` on this process's ranks, and closes it. Over mpi and nccl an
// error is told to the other processes, printed with the rank, and thrown as Reported, since the
// process may end on the way out. Throws UsageError if --ranks is not the size of the mpi job,
// UnsupportedError for a transport that this build does not have, CommError, and what `work`
// throws.
void with_ranks(const TransportOptions& options, const std::function<void(Ranks&)>& work);

}  // namespace farskip
