#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "farskip/comm/deadline.h"
#include "farskip/comm/nccl_api.h"

namespace farskip {

// Owns one NCCL communicator. Every failed call throws CommError with NCCL's name for it and what
// it tells of the reason.
// Thread rule: any thread may call any member; abort also while another thread is in one.
class NcclCommunicator {
 public:
  // Throws CommError if a wait must end: called again and again while one lasts.
  using Check = std::function<void()>;

  // Returns when the communicator works, which needs every rank. Throws CommError when the deadline
  // passes, having aborted it.
  NcclCommunicator(std::shared_ptr<NcclApi> api, int rank, int size, const NcclUniqueId& id,
                   at::Device device, const Deadline& deadline, const Check& check);
  // Aborts, unless finish was called.
  ~NcclCommunicator();
  NcclCommunicator(const NcclCommunicator&) = delete;
  NcclCommunicator& operator=(const NcclCommunicator&) = delete;

  // Makes `calls` as one NCCL group and returns once they are queued on their stream, so that an
  // event recorded then stands behind them.
  using Calls = std::function<void(const NcclCommunicator&, NcclHandle)>;
  void launch(const Calls& calls, const Deadline& deadline, const Check& check);
  // For `calls`: throws CommError unless the call went well or is under way.
  void expect(NcclResult result, const char* call) const;
  NcclApi& api() const { return *api_; }

  // What went wrong since, on this rank or between ranks.
  std::optional<std::string> error() noexcept;
  // Ends what runs on the device. At once or after what NCCL needs to wind up.
  void abort() noexcept;
  // Frees everything once all is done on every rank; aborts when the deadline passes or `give_up`,
  // which is called again and again, says so.
  void finish(const Deadline& deadline, const std::function<bool()>& give_up) noexcept;

 private:
  void wait_ready(const char* call, const Deadline& deadline, const Check& check);

  const std::shared_ptr<NcclApi> api_;
  std::mutex mutex_;  // held for each call, never between the polls of a wait
  NcclHandle handle_ = nullptr;
};

}  // namespace farskip
