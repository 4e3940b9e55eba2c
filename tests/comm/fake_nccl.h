#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "farskip/comm/comm_stream.h"
#include "farskip/comm/nccl.h"
#include "farskip/comm/nccl_api.h"

namespace farskip::testing {

// A device stream whose device is a thread and whose memory is the host's.
class FakeStream final : public CommStream {
 public:
  FakeStream();
  ~FakeStream() override;  // runs what is queued
  at::Device device() const override { return at::kCPU; }
  c10::Stream stream() const override { return c10::Stream(c10::Stream::UNSAFE, at::kCPU, 0); }
  void wait_for(const Event& ready) override;
  Event record(bool timed) override;
  at::Tensor empty(at::IntArrayRef shape, at::ScalarType dtype) override;
  void run(std::function<void()> function) override;
  // From now on, events of this device throw when they are looked at.
  void break_down() { broken_->store(true); }

 private:
  void work();
  const std::shared_ptr<std::atomic<bool>> broken_ = std::make_shared<std::atomic<bool>>(false);
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> queue_;
  bool stopping_ = false;
  std::thread thread_;
};

// What lies between the FakeNccls of a job.
class FakeNetwork {
 public:
  explicit FakeNetwork(int size) : size_(size) {}
  int size() const { return size_; }
  void put(int from, int to, std::string bytes);
  // Nothing once `cancelled` is set, after wake.
  std::optional<std::string> take(int from, int to, const std::atomic<bool>& cancelled);
  void wake();
  std::atomic<int> initialised = 0;

 private:
  const int size_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::pair<int, int>, std::deque<std::string>> messages_;
};

// What goes wrong at the next call of that name. `call` is a member of NcclApi, or "stream": what a
// launch queued there.
struct Fault {
  std::string call;
  bool never = false;  // it stays in progress for ever; otherwise it fails
};

// NCCL for one rank, over its FakeStream. Like NCCL, a launch reaches the stream only some polls
// after group_end, and what waits there for a peer ends only by an abort.
class FakeNccl final : public NcclApi {
 public:
  FakeNccl(std::shared_ptr<FakeNetwork> network, int rank);
  ~FakeNccl() override;  // expects every communicator to be freed

  void use(FakeStream& stream) { stream_ = &stream; }
  void arm(Fault fault);
  FakeStream& stream() { return *stream_; }
  int calls(const std::string& name) const;

  NcclResult get_version(int* version) override;
  NcclResult get_unique_id(NcclUniqueId* id) override;
  NcclResult comm_init_rank(NcclHandle* comm, int size, const NcclUniqueId& id, int rank,
                            at::Device device) override;
  NcclResult comm_get_async_error(NcclHandle comm, NcclResult* error) override;
  NcclResult comm_finalize(NcclHandle comm) override;
  NcclResult comm_destroy(NcclHandle comm) override;
  NcclResult comm_abort(NcclHandle comm) override;
  NcclResult group_start() override;
  NcclResult group_end() override;
  NcclResult send(const void* in, size_t count, NcclType type, int peer, NcclHandle comm,
                  const c10::Stream& stream) override;
  NcclResult recv(void* out, size_t count, NcclType type, int peer, NcclHandle comm,
                  const c10::Stream& stream) override;
  NcclResult all_gather(const void* in, void* out, size_t count, NcclType type, NcclHandle comm,
                        const c10::Stream& stream) override;
  NcclResult reduce_scatter(const void* in, void* out, size_t count, NcclType type, NcclHandle comm,
                            const c10::Stream& stream) override;
  NcclResult all_reduce(const void* in, void* out, size_t count, NcclType type, NcclHandle comm,
                        const c10::Stream& stream) override;
  NcclResult broadcast(const void* in, void* out, size_t count, NcclType type, int root,
                       NcclHandle comm, const c10::Stream& stream) override;
  std::string get_error_string(NcclResult result) override;
  std::string get_last_error(NcclHandle comm) override { return "injected"; }
  void enter_polling_thread() override {}

 private:
  enum class Phase { initialising, ready, launching, finalising };
  struct Communicator {
    Phase phase = Phase::initialising;
    bool never = false;  // stays in its phase
    int polls = 0;
    std::vector<std::function<void()>> batch;
    std::atomic<bool> aborted = false;
    std::atomic<NcclResult> error = NcclResult::success;
  };

  // Counts a call; what it is to return if a fault hits it. `never` is then told apart.
  NcclResult pass(const std::string& call, bool* never = nullptr);
  void queue(std::function<void()> put, std::function<void()> take);
  void put(int to, const void* bytes, size_t count);
  void take(int from, void* bytes, size_t count);
  void sum(void* out, size_t count, NcclType type);
  void run_batch(const std::shared_ptr<Communicator>& comm,
                 const std::vector<std::function<void()>>& batch, std::optional<bool> never);

  const std::shared_ptr<FakeNetwork> network_;
  const int rank_;
  FakeStream* stream_ = nullptr;

  mutable std::mutex mutex_;  // guards faults and counts
  std::vector<Fault> faults_;
  std::map<std::string, int> calls_;

  std::shared_ptr<Communicator> comm_;  // one call at a time
  std::vector<std::function<void()>> puts_, takes_;
  int depth_ = 0;
};

// The ranks of a job, each with its own group over the fake.
struct NcclJob {
  std::vector<std::shared_ptr<FakeNccl>> apis;
  std::vector<std::shared_ptr<Bootstrap>> bootstraps;  // shared with the groups
  std::vector<std::unique_ptr<Group>> groups;          // null where making one threw
  std::vector<std::string> errors;                     // of making the groups, by rank
};

// `prepare` may arm faults before a rank makes its group.
NcclJob make_nccl_job(int size, NcclOptions options,
                      const std::function<void(FakeNccl&, int rank)>& prepare = {});

}  // namespace farskip::testing
