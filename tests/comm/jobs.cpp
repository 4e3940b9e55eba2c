#include "jobs.h"

#include <future>
#include <thread>

#include "farskip/base/error.h"
#include "farskip/comm/socket.h"

namespace farskip::testing {

std::vector<std::string> errors_of_ranks(int size, const std::function<void(int rank)>& function) {
  std::vector<std::string> errors(static_cast<size_t>(size));
  std::vector<std::jthread> threads;
  for (int rank = 0; rank < size; ++rank) {
    threads.emplace_back([&, rank] {
      try {
        function(rank);
      } catch (const CommError& error) {
        errors[static_cast<size_t>(rank)] = error.what();
      }
    });
  }
  threads.clear();
  return errors;
}

std::vector<std::shared_ptr<Bootstrap>> join_job(int size, double deadline_seconds) {
  std::promise<int> listening;
  const std::shared_future<int> port(listening.get_future());
  std::vector<std::shared_ptr<Bootstrap>> result(static_cast<size_t>(size));
  const auto errors = errors_of_ranks(size, [&](int rank) {
    LaunchPlace place{.rank = rank, .size = size};
    if (rank > 0) place.port = port.get();
    BootstrapOptions options{.deadline = std::chrono::duration<double>(deadline_seconds)};
    options.listening = [&](int number) { listening.set_value(number); };
    result[static_cast<size_t>(rank)] = join_by_sockets(place, options);
  });
  for (const std::string& error : errors) {
    if (!error.empty()) throw CommError(error);
  }
  return result;
}

int free_port() { return local_port(listen_on("127.0.0.1", 0)); }

}  // namespace farskip::testing
