#pragma once

#include <chrono>
#include <string>
#include <vector>

namespace farskip::testing {

// What a job of mpirun left behind.
struct JobResult {
  int status = -1;         // mpirun's exit code; -1: it had to be killed at the limit
  std::string output;      // stdout and stderr of all processes
  double seconds = 0;      // until mpirun had ended
  std::vector<int> seen;   // ids of the job's processes, mpirun's own included
  std::vector<int> alive;  // those of them that still ran 5 s after that
};

// Runs `mpirun ARGUMENTS`, as root too and with more processes than cores, and waits at most
// `limit`. Whatever then still runs is killed, by its id.
JobResult mpirun(const std::vector<std::string>& arguments, std::chrono::duration<double> limit);

}  // namespace farskip::testing
