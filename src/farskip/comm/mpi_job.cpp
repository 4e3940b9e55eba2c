#include "farskip/comm/mpi_job.h"

#include <algorithm>
#include <cstdlib>
#include <thread>

namespace farskip {
namespace {

std::string error_text(int code) {
  char text[MPI_MAX_ERROR_STRING];
  int length = 0;
  if (MPI_Error_string(code, text, &length) != MPI_SUCCESS) return std::to_string(code);
  return std::string(text, static_cast<size_t>(length));
}

}  // namespace

void check_mpi(int code, const char* call) {
  if (code != MPI_SUCCESS)
    throw CommError("MPI failed", {.where = call, .found = error_text(code)});
}

void PollPause::sleep() {
  constexpr Clock::duration kShortest = std::chrono::microseconds(5);
  const Clock::duration share = (Clock::now() - begin_) / 8;
  std::this_thread::sleep_for(std::min(longest_, std::max(kShortest, share)));
}

MpiJob::MpiJob(Clock::duration deadline) : deadline_(deadline), life_(std::make_shared<Life>()) {
  int begun = 0;
  check_mpi(MPI_Initialized(&begun), "MPI_Initialized");
  if (begun) throw UsageError("MPI can be started once in a process", {.where = "MpiProcess"});
  std::future<std::string> started = life_->started.get_future();
  std::thread([life = life_] { live(*life); }).detach();
  if (started.wait_for(deadline) != std::future_status::ready) {
    throw CommError("MPI did not start",
                    {.where = "MPI_Init",
                     .expected = "all processes within the deadline",
                     .hint = "a process of the job stopped, or is no farskip"});
  }
  const std::string problem = started.get();
  if (!problem.empty())
    throw CommError("MPI did not start", {.where = "MPI_Init", .found = problem});
  check_mpi(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
  check_mpi(MPI_Comm_rank(MPI_COMM_WORLD, &rank_), "MPI_Comm_rank");
  check_mpi(MPI_Comm_size(MPI_COMM_WORLD, &size_), "MPI_Comm_size");
}

void MpiJob::live(Life& life) {
  int provided = MPI_THREAD_SINGLE;
  const int code = MPI_Init_thread(nullptr, nullptr, MPI_THREAD_MULTIPLE, &provided);
  if (code != MPI_SUCCESS) return life.started.set_value(error_text(code));
  const bool enough = provided >= MPI_THREAD_MULTIPLE;
  life.started.set_value(enough ? "" : "a library without MPI_THREAD_MULTIPLE");
  life.may_end.get_future().wait();
  MPI_Finalize();
  life.ended.set_value();
}

void MpiJob::retire(MPI_Comm communicator) {
  const std::lock_guard lock(mutex_);
  retired_.push_back(communicator);
}

void MpiJob::keep(std::shared_ptr<void> memory) {
  const std::lock_guard lock(mutex_);
  kept_.push_back(std::move(memory));
}

bool MpiJob::farewell(Clock::duration limit) noexcept {
  const Clock::time_point last = Clock::now() + limit;
  MPI_Request request = MPI_REQUEST_NULL;
  if (MPI_Ibarrier(MPI_COMM_WORLD, &request) != MPI_SUCCESS) return false;
  PollPause pause(std::chrono::milliseconds(1));
  for (int done = 0;;) {
    if (MPI_Test(&request, &done, MPI_STATUS_IGNORE) != MPI_SUCCESS) return false;
    if (done) return true;
    if (Clock::now() > last) return false;
    pause.sleep();
  }
}

// Words of farewell that came after a group was closed would otherwise never be received.
void MpiJob::free_communicators() {
  for (MPI_Comm& communicator : retired_) {
    std::vector<char> bytes;
    for (int found = 1; found;) {
      MPI_Message message;
      MPI_Status status;
      int count = 0;
      if (MPI_Improbe(MPI_ANY_SOURCE, MPI_ANY_TAG, communicator, &found, &message, &status)) break;
      if (!found) break;
      MPI_Get_count(&status, MPI_BYTE, &count);
      bytes.resize(static_cast<size_t>(count));
      MPI_Mrecv(bytes.data(), count, MPI_BYTE, &message, MPI_STATUS_IGNORE);
    }
    MPI_Comm_free(&communicator);
  }
  retired_.clear();
}

bool MpiJob::end(Clock::duration limit) noexcept {
  free_communicators();
  std::future<void> ended = life_->ended.get_future();
  life_->may_end.set_value();
  return ended.wait_for(limit) == std::future_status::ready;
}

void MpiJob::abort(int exit_code) noexcept {
  MPI_Abort(MPI_COMM_WORLD, exit_code);
  std::abort();  // not reached: MPI_Abort does not return
}

}  // namespace farskip
