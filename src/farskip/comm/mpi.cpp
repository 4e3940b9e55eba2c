#include "farskip/comm/mpi.h"

#include <mpi.h>

#include <algorithm>
#include <exception>
#include <future>
#include <optional>
#include <thread>

#include "farskip/comm/agreement.h"
#include "farskip/comm/mpi_exchange.h"
#include "farskip/comm/queued_group.h"
#include "farskip/version.h"

namespace farskip {
namespace {

constexpr int64_t kProtocol = 2;  // of mpi_message.h and mpi_exchange.h
constexpr int kFirstHelloTag = 16;
// How long an error elsewhere is given to be printed before the job is torn down.
constexpr Clock::duration kMoment = std::chrono::seconds(2);

CommError late_error(const MpiJob& job, const std::string& waiting_for) {
  return CommError(
      "the deadline passed",
      {.where = "making an mpi group, rank " + std::to_string(job.rank()),
       .found = waiting_for,
       .hint = "every process of the job must make the same groups in the same order"});
}

// What every rank has to say of itself before a group is made.
std::vector<MpiMessage> exchange_hellos(MpiJob& job, int group, const MpiMessage& own,
                                        Clock::time_point last) {
  std::vector<std::optional<MpiMessage>> hellos(static_cast<size_t>(job.size()));
  hellos[static_cast<size_t>(job.rank())] = own;
  MpiChannel channel(MPI_COMM_WORLD, kFirstHelloTag + group);
  channel.send_to_all(own);
  const auto missing = [&] {
    std::vector<int> ranks;
    for (int rank = 0; rank < job.size(); ++rank) {
      if (!hellos[static_cast<size_t>(rank)]) ranks.push_back(rank);
    }
    return ranks;
  };
  PollPause pause(std::chrono::milliseconds(1));
  while (!missing().empty() || !channel.sent()) {
    while (auto received = channel.receive()) {
      hellos[static_cast<size_t>(received->source)] = std::move(received->message);
    }
    if (Clock::now() > last) {
      channel.close(job);
      throw late_error(job, not_entered(missing()));
    }
    pause.sleep();
  }
  std::vector<MpiMessage> result;
  for (auto& hello : hellos) result.push_back(std::move(*hello));
  return result;
}

void check_hellos(const std::vector<MpiMessage>& hellos) {
  const auto check = [&](const std::string& name, const auto& value_of) {
    std::vector<std::string> values;
    for (const MpiMessage& hello : hellos) values.push_back(value_of(hello));
    if (const auto error = find_difference(name, values)) throw *error;
  };
  const auto number = [](size_t index) {
    return [index](const MpiMessage& hello) {
      return index < hello.numbers.size() ? std::to_string(hello.numbers[index]) : "none";
    };
  };
  check("farskip-mpi protocol", number(0));
  check("farskip version", [](const MpiMessage& hello) { return hello.text; });
  check("longest message", number(1));
}

MPI_Comm duplicate_world(MpiJob& job, Clock::time_point last) {
  // Outlives this call if the duplication does.
  struct Duplicate {
    MPI_Comm communicator = MPI_COMM_NULL;
    MPI_Request request = MPI_REQUEST_NULL;
  };
  const auto duplicate = std::make_shared<Duplicate>();
  job.keep(duplicate);
  check_mpi(MPI_Comm_idup(MPI_COMM_WORLD, &duplicate->communicator, &duplicate->request),
            "MPI_Comm_idup");
  PollPause pause(std::chrono::milliseconds(1));
  for (int done = 0;;) {
    check_mpi(MPI_Test(&duplicate->request, &done, MPI_STATUS_IGNORE), "MPI_Comm_idup");
    if (done) break;
    if (Clock::now() > last) throw late_error(job, "not all ranks got to MPI_Comm_idup");
    pause.sleep();
  }
  check_mpi(MPI_Comm_set_errhandler(duplicate->communicator, MPI_ERRORS_RETURN),
            "MPI_Comm_set_errhandler");
  return duplicate->communicator;
}

// This process's part of a communicator, which is split on a thread of its own: that call may take
// for ever.
MPI_Comm split(MpiJob& job, MPI_Comm whole, int part, Clock::time_point last) {
  struct Split {
    MPI_Comm communicator = MPI_COMM_NULL;
    std::promise<int> done;
  };
  const auto split = std::make_shared<Split>();
  std::future<int> done = split->done.get_future();
  std::thread([split, whole, part, rank = job.rank()] {
    split->done.set_value(MPI_Comm_split(whole, part, rank, &split->communicator));
  }).detach();
  if (done.wait_until(last) != std::future_status::ready) {
    throw late_error(job, "not all ranks got to MPI_Comm_split");
  }
  check_mpi(done.get(), "MPI_Comm_split");
  job.retire(whole);
  check_mpi(MPI_Comm_set_errhandler(split->communicator, MPI_ERRORS_RETURN),
            "MPI_Comm_set_errhandler");
  return split->communicator;
}

}  // namespace

bool mpi_is_available() { return true; }

std::string mpi_version() {
  char text[MPI_MAX_LIBRARY_VERSION_STRING];
  int length = 0;
  if (MPI_Get_library_version(text, &length) != MPI_SUCCESS) return "unknown";
  // "Open MPI v4.1.4, package: ...": the rest is of no use to a reader.
  std::string version(text, static_cast<size_t>(length));
  version = version.substr(0, version.find_first_of(",\n"));
  const size_t number = version.rfind(" v");
  if (number != std::string::npos) version.erase(number + 1, 1);
  return version;
}

MpiProcess::MpiProcess(std::chrono::duration<double> deadline)
    : job_(std::make_shared<MpiJob>(checked_deadline(deadline))),
      exceptions_(std::uncaught_exceptions()) {}

MpiProcess::~MpiProcess() {
  const bool broken = job_->failed() || std::uncaught_exceptions() > exceptions_;
  const bool together =
      job_->farewell(broken ? std::min(kMoment, job_->deadline()) : job_->deadline());
  if (together && !job_->failed() && job_->end(job_->deadline())) return;
  // One call ends all; several only multiply mpirun's messages.
  if (together && job_->rank() != 0) std::this_thread::sleep_for(kMoment);
  job_->abort(exit_code_);
}

int MpiProcess::rank() const { return job_->rank(); }
int MpiProcess::size() const { return job_->size(); }
void MpiProcess::fail_with(int exit_code) { exit_code_ = exit_code; }

std::unique_ptr<Group> make_mpi_group(const MpiProcess& process, const MpiOptions& options) {
  const Clock::duration deadline = checked_deadline(options.deadline);
  if (options.longest_message < 1 || options.longest_message > INT32_MAX) {
    throw UsageError("wrong longest message", {.expected = "1 to 2147483647 bytes",
                                               .found = std::to_string(options.longest_message)});
  }
  if (options.part < 0) {
    throw UsageError("wrong part of the job",
                     {.expected = "0 or more", .found = std::to_string(options.part)});
  }
  const std::shared_ptr<MpiJob> job = process.job_;
  const Clock::time_point last = Clock::now() + deadline;
  const MpiMessage hello{.kind = MpiMessage::Kind::hello,
                         .numbers = {kProtocol, options.longest_message},
                         .text = options.version.empty() ? std::string(version) : options.version};
  check_hellos(exchange_hellos(*job, job->next_group(), hello, last));
  const MPI_Comm communicator = split(*job, duplicate_world(*job, last), options.part, last);
  return std::make_unique<QueuedGroup>(
      std::make_shared<MpiExchange>(job, communicator, deadline, options.longest_message),
      QueuedGroupOptions{.pin_thread = options.pin_thread});
}

}  // namespace farskip
