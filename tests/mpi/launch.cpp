#include "launch.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>
#include <sstream>
#include <thread>

namespace farskip::testing {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

std::string read_all(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// A zombie has ended: only its parent has not looked yet.
bool runs(int id) {
  const std::string status = read_all("/proc/" + std::to_string(id) + "/stat");
  const size_t name_end = status.rfind(')');
  return name_end != std::string::npos && status.substr(name_end, 3) != ") Z";
}

// Processes whose environment holds `mark`: those of one job.
std::set<int> marked_processes(const std::string& mark) {
  std::set<int> ids;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator("/proc", ignored)) {
    const int id = std::atoi(entry.path().filename().c_str());
    if (id <= 0 || id == getpid()) continue;
    if (read_all(entry.path() / "environ").find(mark) != std::string::npos && runs(id)) {
      ids.insert(id);
    }
  }
  return ids;
}

// mpirun does not wait until those that it kills are gone.
std::vector<int> still_running(std::vector<int> ids, Clock::duration grace) {
  const Clock::time_point last = Clock::now() + grace;
  while (std::erase_if(ids, [](int id) { return !runs(id); }), !ids.empty()) {
    if (Clock::now() > last) break;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return ids;
}

[[noreturn]] void become_mpirun(const std::vector<std::string>& arguments, const std::string& mark,
                                const fs::path& output) {
  std::vector<const char*> words = {FARSKIP_MPIRUN, "--oversubscribe", "--bind-to", "none"};
  for (const std::string& argument : arguments) words.push_back(argument.c_str());
  words.push_back(nullptr);
  setenv("OMPI_ALLOW_RUN_AS_ROOT", "1", 1);
  setenv("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1", 1);
  // Containers often forbid the call behind it; it then falls back with a warning.
  setenv("OMPI_MCA_btl_vader_single_copy_mechanism", "none", 1);
  setenv("FARSKIP_TEST_JOB", mark.c_str(), 1);
  const int file = open(output.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
  const int nothing = open("/dev/null", O_RDONLY);
  dup2(nothing, STDIN_FILENO);
  dup2(file, STDOUT_FILENO);
  dup2(file, STDERR_FILENO);
  execv(words[0], const_cast<char* const*>(words.data()));
  _exit(127);
}

}  // namespace

JobResult mpirun(const std::vector<std::string>& arguments, std::chrono::duration<double> limit) {
  static int jobs = 0;
  const std::string mark =
      "farskip-job-" + std::to_string(getpid()) + "-" + std::to_string(jobs++) + "-";
  const fs::path output = fs::temp_directory_path() / (mark + "output");
  const Clock::time_point begin = Clock::now();
  const pid_t launcher = fork();
  if (launcher == 0) become_mpirun(arguments, mark, output);

  JobResult result;
  std::set<int> seen = {launcher};
  int status = 0;
  while (waitpid(launcher, &status, WNOHANG) == 0) {
    seen.merge(marked_processes(mark));
    if (Clock::now() - begin > limit) {
      kill(launcher, SIGKILL);
      waitpid(launcher, &status, 0);
      break;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  result.seconds = std::chrono::duration<double>(Clock::now() - begin).count();
  if (WIFEXITED(status)) result.status = WEXITSTATUS(status);
  seen.merge(marked_processes(mark));
  result.seen.assign(seen.begin(), seen.end());
  result.alive = still_running(result.seen, std::chrono::seconds(5));
  for (const int id : result.alive) kill(id, SIGKILL);
  result.output = read_all(output);
  fs::remove(output);
  return result;
}

}  // namespace farskip::testing
