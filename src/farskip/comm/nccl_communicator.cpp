#include "farskip/comm/nccl_communicator.h"

#include <thread>

#include "farskip/base/error.h"

namespace farskip {
namespace {

bool fine(NcclResult result) {
  return result == NcclResult::success || result == NcclResult::in_progress;
}

// Between two looks at something that usually takes microseconds, and sometimes seconds.
class Backoff {
 public:
  void pause() {
    if (++looks_ < 50) {
      std::this_thread::yield();
    } else {
      std::this_thread::sleep_for(std::chrono::microseconds(looks_ < 500 ? 20 : 500));
    }
  }

 private:
  int looks_ = 0;
};

}  // namespace

NcclCommunicator::NcclCommunicator(std::shared_ptr<NcclApi> api, int rank, int size,
                                   const NcclUniqueId& id, at::Device device,
                                   const Deadline& deadline, const Check& check)
    : api_(std::move(api)) {
  try {
    {
      const std::lock_guard lock(mutex_);
      expect(api_->comm_init_rank(&handle_, size, id, rank, device), "ncclCommInitRankConfig");
    }
    wait_ready("ncclCommInitRankConfig", deadline, check);
  } catch (...) {
    abort();
    throw;
  }
}

NcclCommunicator::~NcclCommunicator() { abort(); }

void NcclCommunicator::expect(NcclResult result, const char* call) const {
  if (fine(result)) return;
  const std::string detail = api_->get_last_error(handle_);
  throw CommError("NCCL failed",
                  {.where = call,
                   .found = api_->get_error_string(result) + (detail.empty() ? "" : ": " + detail),
                   .hint = "NCCL_DEBUG=WARN makes NCCL say more"});
}

void NcclCommunicator::wait_ready(const char* call, const Deadline& deadline, const Check& check) {
  for (Backoff backoff;; backoff.pause()) {
    {
      const std::lock_guard lock(mutex_);
      if (!handle_) throw CommError("the communicator was aborted", {.where = call});
      NcclResult state = NcclResult::success;
      expect(api_->comm_get_async_error(handle_, &state), "ncclCommGetAsyncError");
      expect(state, call);
      if (state == NcclResult::success) return;
    }
    check();
    if (deadline.passed()) {
      throw CommError("NCCL did not get ready within the deadline",
                      {.where = call,
                       .expected = "all ranks within " + std::to_string(deadline.seconds()) + " s",
                       .found = "still in progress"});
    }
  }
}

void NcclCommunicator::launch(const Calls& calls, const Deadline& deadline, const Check& check) {
  {
    const std::lock_guard lock(mutex_);
    if (!handle_) throw CommError("the communicator was aborted");
    expect(api_->group_start(), "ncclGroupStart");
    try {
      calls(*this, handle_);
    } catch (...) {
      // A group that stays open would swallow every later call of this thread.
      api_->group_end();
      throw;
    }
    expect(api_->group_end(), "ncclGroupEnd");
  }
  wait_ready("ncclGroupEnd", deadline, check);
}

std::optional<std::string> NcclCommunicator::error() noexcept {
  const std::lock_guard lock(mutex_);
  if (!handle_) return std::nullopt;
  try {
    NcclResult state = NcclResult::success;
    expect(api_->comm_get_async_error(handle_, &state), "ncclCommGetAsyncError");
    expect(state, "a collective under way");
  } catch (const CommError& error) {
    return error.what();
  }
  return std::nullopt;
}

void NcclCommunicator::abort() noexcept {
  NcclHandle handle = nullptr;
  {
    const std::lock_guard lock(mutex_);
    handle = std::exchange(handle_, nullptr);
  }
  // Without the mutex: NCCL may take its time, and whoever waits for it must hear of the end now.
  if (handle) api_->comm_abort(handle);
}

void NcclCommunicator::finish(const Deadline& deadline,
                              const std::function<bool()>& give_up) noexcept {
  NcclResult state = NcclResult::success;
  {
    const std::lock_guard lock(mutex_);
    if (!handle_) return;
    state = api_->comm_finalize(handle_);
    for (Backoff backoff; state == NcclResult::in_progress; backoff.pause()) {
      if (deadline.passed() || give_up()) break;
      const NcclResult asked = api_->comm_get_async_error(handle_, &state);
      if (asked != NcclResult::success) state = asked;
    }
    if (state == NcclResult::success) api_->comm_destroy(std::exchange(handle_, nullptr));
  }
  if (state != NcclResult::success) abort();
}

}  // namespace farskip
