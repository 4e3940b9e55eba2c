#include "farskip/cli/transport.h"

#include <CLI/CLI.hpp>
#include <numeric>
#include <utility>

#include "farskip/cli/commands.h"
#include "farskip/comm/local.h"
#include "farskip/comm/mpi.h"

namespace farskip {
namespace {

using Seconds = std::chrono::duration<double>;

void run_local(const TransportOptions& options, const std::function<void(Ranks&)>& work) {
  Ranks ranks{.size = options.ranks.value_or(options.default_ranks)};
  ranks.here.resize(static_cast<size_t>(ranks.size));
  std::iota(ranks.here.begin(), ranks.here.end(), 0);
  ranks.open = [&] {
    return make_local_groups(
        ranks.size, {.deadline = Seconds(options.deadline), .pin_threads = options.pin_threads});
  };
  ranks.groups = ranks.open();
  work(ranks);
}

// Before a group is made, so that a flag that is wrong everywhere ends the job in order.
void check_size(const TransportOptions& options, int size) {
  if (options.ranks.value_or(size) == size) return;
  throw UsageError("the job has another number of processes",
                   {.where = "--ranks",
                    .expected = std::to_string(size) + ", as mpirun started",
                    .found = std::to_string(*options.ranks),
                    .hint = "leave --ranks out, or start as many with mpirun -n"});
}

void run_mpi(const TransportOptions& options, const std::function<void(Ranks&)>& work) {
  MpiProcess process{Seconds(options.deadline)};
  Ranks ranks{.size = process.size(), .here = {process.rank()}};
  try {
    check_size(options, ranks.size);
    ranks.open = [&] {
      std::vector<std::unique_ptr<Group>> groups;
      groups.push_back(make_mpi_group(process, {.deadline = Seconds(options.deadline)}));
      return groups;
    };
    ranks.groups = ranks.open();
    work(ranks);
  } catch (const std::exception& error) {
    const int status = report(error, process.rank());
    process.fail_with(status);
    for (const auto& group : ranks.groups) {
      if (group) {
        group->abort(
            CommError("a rank stopped with an error",
                      {.where = "rank " + std::to_string(process.rank()), .found = error.what()}));
      }
    }
    throw Reported{status};
  }
}

}  // namespace

std::vector<std::unique_ptr<Group>> Ranks::take_groups() {
  if (groups.empty()) return open();
  return std::exchange(groups, {});
}

void add_transport_options(CLI::App& command, TransportOptions& options, int most_ranks) {
  command
      .add_option("--ranks", options.ranks,
                  "ranks that share the experts: threads of this process; with --transport mpi the "
                  "processes that mpirun started [" +
                      std::to_string(options.default_ranks) + "]")
      ->check(CLI::Range(1, most_ranks));
  command.add_option("--transport", options.name, "how ranks communicate")
      ->capture_default_str()
      ->check(CLI::IsMember({"local", "mpi"}));
  command.add_option("--deadline", options.deadline, "longest wait for another rank, in seconds")
      ->capture_default_str()
      ->check(CLI::Range(1e-3, 1e7));
}

void with_ranks(const TransportOptions& options, const std::function<void(Ranks&)>& work) {
  if (options.name == "mpi") return run_mpi(options, work);
  run_local(options, work);
}

}  // namespace farskip
