#include "farskip/comm/ranks.h"

#include <ATen/Parallel.h>

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

void run_rank(Group& group, const std::function<void(Group&)>& function, RankOptions options,
              FirstError& first) {
  at::set_num_threads(options.threads);
  name_thread("rank " + std::to_string(group.rank()));
  // Intra-op threads inherit the mask of the thread that starts them.
  if (options.pin_threads && options.threads == 1) {
    const std::vector<int> cores = usable_cores();
    pin_thread_to_core(cores[static_cast<size_t>(group.rank()) % cores.size()]);
  }
  const auto abort = [&](const std::string& what) {
    group.abort(CommError("a rank stopped with an error",
                          {.where = "rank " + std::to_string(group.rank()), .found = what}));
  };
  try {
    function(group);
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
  if (groups.empty()) throw UsageError("no groups to run ranks on");
  for (const auto& group : groups) {
    if (!group) throw UsageError("a rank has a null group");
  }
  FirstError first;
  {
    std::vector<std::jthread> threads;  // joined at the end of the block, even by an exception
    for (const auto& group : groups) {
      threads.emplace_back(
          [&, target = group.get()] { run_rank(*target, function, options, first); });
    }
  }
  first.rethrow();
}

}  // namespace farskip
