#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "farskip/comm/group.h"

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
  bool pin_threads = false;  // local: rank r on core r
};

// Adds --transport, --ranks and --deadline. `options` must outlive the parse.
void add_transport_options(CLI::App& command, TransportOptions& options, int most_ranks);

// The ranks of a command, and those of them that this process holds.
struct Ranks {
  int size = 1;
  std::vector<int> here;                       // ascending
  std::vector<std::unique_ptr<Group>> groups;  // of `here`
  std::function<std::vector<std::unique_ptr<Group>>()> open;
  // The groups, or, once they were taken, new ones. Collective.
  std::vector<std::unique_ptr<Group>> take_groups();
  // Whether this process holds rank 0, which writes and prints results.
  bool first() const { return here.front() == 0; }
};

// Opens the transport, runs `work` on this process's ranks, and closes it. Over mpi an error is
// told to the other processes, printed with the rank, and thrown as Reported, since the process may
// end on the way out. Throws UsageError if --ranks is not the size of the mpi job,
// UnsupportedError for a transport that this build does not have, CommError, and what `work`
// throws.
void with_ranks(const TransportOptions& options, const std::function<void(Ranks&)>& work);

}  // namespace farskip
