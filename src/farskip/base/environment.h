#pragma once

#include <chrono>
#include <map>
#include <optional>
#include <string>

namespace farskip {

// Where a launcher such as torchrun placed this process among the ranks of a job.
struct LaunchPlace {
  int rank = 0;
  int size = 1;                       // ranks of the job
  int local_rank = 0;                 // among the ranks of this machine: which of its GPUs
  std::string address = "127.0.0.1";  // name or IP address at which rank 0 is reached
  int port = 0;                       // TCP port on which rank 0 listens; 0: rank 0 picks one
  std::string bind_address;           // what rank 0 listens on; empty: `address`
};

// The environment variables that farskip reads; nothing else in the library reads any. A snapshot:
// immutable, any thread. Getters throw UsageError naming the variable when its value makes no
// sense.
class Environment {
 public:
  using Values = std::map<std::string, std::string>;

  // Takes the values from this process's environment; call before threads change it.
  static Environment from_process();
  // Takes them from a map, for tests.
  explicit Environment(Values values) : values_(std::move(values)) {}

  // FARSKIP_THREADS: compute threads a rank, at least 1; nothing when unset.
  std::optional<int> threads() const;
  // FARSKIP_DEADLINE_S: how long any wait for another rank may last, in seconds; nothing when
  // unset.
  std::optional<std::chrono::duration<double>> deadline() const;

  // Whether a launcher set RANK or WORLD_SIZE.
  bool is_launched() const;
  // RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR (127.0.0.1 when unset) and MASTER_PORT, as torchrun
  // sets them; FARSKIP_PORT: a port in place of MASTER_PORT, which torchrun may hold itself;
  // FARSKIP_BIND: what rank 0 listens on where that is not MASTER_ADDR. Also throws UsageError for
  // one that is missing; a job of one rank needs no port.
  LaunchPlace launch_place() const;

 private:
  std::optional<std::string> find(const std::string& name) const;

  Values values_;  // set and not empty
};

}  // namespace farskip
