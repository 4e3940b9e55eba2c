#include "farskip/comm/ranks.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <mutex>
#include <thread>

#include "farskip/base/threads.h"

namespace farskip {
namespace {

// The error to rethrow, of those that ranks ran into. Thread rule: any thread.
class FirstError {
 public:
  void add(std::exception_ptr error, bool secondary) {
    const std::lock_guard lock(mutex_);
    std::exception_ptr& place = secondary ? secondary_ : original_;
    if (!place) place = std::move(error);
  }
  void rethrow() const {
    if (original_) std::rethrow_exception(original_);
    if (secondary_) std::rethrow_exception(secondary_);
  }

 private:
  std::mutex mutex_;
  std::exception_ptr original_, secondary_;
};

void run_rank(const std::vector<Group*>& groups, const std::function<void()>& function,
              RankOptions options, FirstError& first) {
  const Group& group = *groups.front();
  at::set_num_threads(options.threads);
  name_thread("rank " + std::to_string(group.rank()));
  // Intra-op threads inherit the mask of the thread that starts them.
  if (options.pin_threads && options.threads == 1) {
    const std::vector<int> cores = usable_cores();
    pin_thread_to_core(cores[static_cast<size_t>(group.rank()) % cores.size()]);
  }
  const auto abort = [&](const std::string& what) {
    const CommError error("a rank stopped with an error",
                          {.where = "rank " + std::to_string(group.rank()), .found = what});
    for (Group* each : groups) each->abort(error);
  };
  try {
    function();
  } catch (const CommError& error) {
    first.add(std::current_exception(), true);
    abort(error.what());
  } catch (const std::exception& error) {
    first.add(std::current_exception(), false);
    abort(error.what());
  } catch (...) {
    first.add(std::current_exception(), false);
    abort("an exception of unknown type");
  }
}

}  // namespace

void run_ranks(const std::vector<std::unique_ptr<Group>>& groups,
               const std::function<void(Group&)>& function, RankOptions options) {
  std::vector<std::vector<Group*>> one_each;
  for (const auto& group : groups) one_each.push_back({group.get()});
  run_ranks(
      one_each, [&](size_t rank) { function(*groups[rank]); }, options);
}

void run_ranks(const std::vector<std::vector<Group*>>& groups,
               const std::function<void(size_t)>& function, RankOptions options) {
  if (groups.empty()) throw UsageError("no groups to run ranks on");
  for (const std::vector<Group*>& of_rank : groups) {
    const bool whole = !of_rank.empty() && std::ranges::count(of_rank, nullptr) == 0;
    if (!whole) throw UsageError("a rank has a null group");
  }
  FirstError first;
  {
    std::vector<std::jthread> threads;  // joined at the end of the block, even by an exception
    for (size_t rank = 0; rank < groups.size(); ++rank) {
      threads.emplace_back([&, rank] {
        run_rank(
            groups[rank], [&function, rank] { function(rank); }, options, first);
      });
    }
  }
  first.rethrow();
}

}  // namespace farskip
