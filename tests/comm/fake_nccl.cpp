#include "fake_nccl.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

#include "farskip/base/error.h"
#include "jobs.h"

namespace farskip::testing {
namespace {

class FakeEvent final : public Event::State {
 public:
  explicit FakeEvent(std::shared_ptr<std::atomic<bool>> broken) : broken_(std::move(broken)) {}
  void pass() {
    const std::lock_guard lock(mutex_);
    at_ = Clock::now();
  }
  bool done() override {
    if (*broken_) throw std::runtime_error("an illegal memory access was encountered");
    const std::lock_guard lock(mutex_);
    return at_.has_value();
  }
  void block(const c10::Stream&) override { synchronize(); }
  void synchronize() override {
    while (!done()) std::this_thread::yield();
  }
  double seconds_since(State& earlier) override {
    return std::chrono::duration<double>(*at_ - *dynamic_cast<FakeEvent&>(earlier).at_).count();
  }

 private:
  const std::shared_ptr<std::atomic<bool>> broken_;
  std::mutex mutex_;
  std::optional<Clock::time_point> at_;
};

at::ScalarType dtype_of(NcclType type) {
  switch (type) {
    case NcclType::float16:
      return at::kHalf;
    case NcclType::float32:
      return at::kFloat;
    case NcclType::float64:
      return at::kDouble;
    case NcclType::bfloat16:
      return at::kBFloat16;
    case NcclType::int32:
      return at::kInt;
    case NcclType::int64:
      return at::kLong;
    default:
      return at::kByte;
  }
}

size_t bytes_of(size_t count, NcclType type) { return count * c10::elementSize(dtype_of(type)); }

}  // namespace

FakeStream::FakeStream() : thread_([this] { work(); }) {}

FakeStream::~FakeStream() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    changed_.notify_all();
  }
  thread_.join();
}

void FakeStream::work() {
  at::set_num_threads(1);
  const c10::AutoGradMode no_gradients(false);
  while (true) {
    std::function<void()> next;
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [&] { return stopping_ || !queue_.empty(); });
      if (queue_.empty()) return;
      next = std::move(queue_.front());
      queue_.pop_front();
    }
    next();
  }
}

void FakeStream::run(std::function<void()> function) {
  const std::lock_guard lock(mutex_);
  queue_.push_back(std::move(function));
  changed_.notify_all();
}

void FakeStream::wait_for(const Event& ready) {
  if (ready.valid()) run([ready] { ready.synchronize(); });
}

Event FakeStream::record(bool timed) {
  const auto state = std::make_shared<FakeEvent>(broken_);
  run([state] { state->pass(); });
  return Event(state);
}

at::Tensor FakeStream::empty(at::IntArrayRef shape, at::ScalarType dtype) {
  return at::empty(shape, dtype);
}

void FakeNetwork::put(int from, int to, std::string bytes) {
  const std::lock_guard lock(mutex_);
  messages_[{from, to}].push_back(std::move(bytes));
  changed_.notify_all();
}

std::optional<std::string> FakeNetwork::take(int from, int to, const std::atomic<bool>& cancelled) {
  std::unique_lock lock(mutex_);
  std::deque<std::string>& box = messages_[{from, to}];
  changed_.wait(lock, [&] { return cancelled || !box.empty(); });
  if (box.empty()) return std::nullopt;
  std::string bytes = std::move(box.front());
  box.pop_front();
  return bytes;
}

void FakeNetwork::wake() {
  const std::lock_guard lock(mutex_);
  changed_.notify_all();
}

FakeNccl::FakeNccl(std::shared_ptr<FakeNetwork> network, int rank)
    : network_(std::move(network)), rank_(rank) {}

FakeNccl::~FakeNccl() { EXPECT_EQ(comm_, nullptr) << "rank " << rank_ << " leaks a communicator"; }

void FakeNccl::arm(Fault fault) {
  const std::lock_guard lock(mutex_);
  faults_.push_back(std::move(fault));
}

int FakeNccl::calls(const std::string& name) const {
  const std::lock_guard lock(mutex_);
  const auto found = calls_.find(name);
  return found == calls_.end() ? 0 : found->second;
}

NcclResult FakeNccl::pass(const std::string& call, bool* never) {
  const std::lock_guard lock(mutex_);
  ++calls_[call];
  const auto fault = std::find_if(faults_.begin(), faults_.end(),
                                  [&](const Fault& each) { return each.call == call; });
  if (fault == faults_.end()) return NcclResult::success;
  const bool waits = fault->never;
  faults_.erase(fault);
  if (!waits) return NcclResult::system_error;
  if (never) *never = true;
  return NcclResult::in_progress;
}

NcclResult FakeNccl::get_version(int* version) {
  *version = 22809;
  return pass("get_version");
}

NcclResult FakeNccl::get_unique_id(NcclUniqueId* id) {
  id->fill('x');
  return pass("get_unique_id");
}

NcclResult FakeNccl::comm_init_rank(NcclHandle* comm, int size, const NcclUniqueId& id, int rank,
                                    at::Device) {
  EXPECT_EQ(size, network_->size());
  EXPECT_EQ(rank, rank_);
  EXPECT_EQ(id[0], 'x');
  EXPECT_EQ(id[127], 'x');
  bool never = false;
  const NcclResult result = pass("comm_init_rank", &never);
  if (result == NcclResult::system_error) return result;
  comm_ = std::make_shared<Communicator>();
  comm_->never = never;
  *comm = reinterpret_cast<NcclHandle>(comm_.get());
  if (!never) ++network_->initialised;
  return NcclResult::in_progress;
}

NcclResult FakeNccl::comm_get_async_error(NcclHandle comm, NcclResult* error) {
  EXPECT_EQ(comm, reinterpret_cast<NcclHandle>(comm_.get()));
  const NcclResult result = pass("comm_get_async_error");
  if (result == NcclResult::system_error) return result;
  *error = comm_->error;
  if (*error != NcclResult::success || comm_->phase == Phase::ready) return NcclResult::success;
  *error = NcclResult::in_progress;
  if (comm_->never) return NcclResult::success;
  const bool initialised = network_->initialised == network_->size();
  if (comm_->phase == Phase::initialising ? !initialised : ++comm_->polls < 3) {
    return NcclResult::success;
  }
  if (comm_->phase == Phase::launching) {
    bool never = false;
    const NcclResult fault = pass("stream", &never);
    std::optional<bool> stuck;
    if (fault != NcclResult::success) stuck = never;
    stream_->run([this, owned = comm_, batch = std::move(comm_->batch), stuck] {
      run_batch(owned, batch, stuck);
    });
    comm_->batch.clear();
  }
  comm_->phase = Phase::ready;
  *error = NcclResult::success;
  return NcclResult::success;
}

void FakeNccl::run_batch(const std::shared_ptr<Communicator>& comm,
                         const std::vector<std::function<void()>>& batch,
                         std::optional<bool> never) {
  if (never) {
    if (!*never) comm->error = NcclResult::remote_error;
    while (!comm->aborted) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  for (const auto& each : batch) {
    if (!comm->aborted) each();
  }
}

NcclResult FakeNccl::comm_finalize(NcclHandle) {
  bool never = false;
  const NcclResult result = pass("comm_finalize", &never);
  if (result == NcclResult::system_error) return result;
  comm_->phase = Phase::finalising;
  comm_->polls = 0;
  comm_->never = never;
  return NcclResult::in_progress;
}

NcclResult FakeNccl::comm_destroy(NcclHandle) {
  const NcclResult result = pass("comm_destroy");
  EXPECT_EQ(comm_->phase, Phase::ready);
  comm_.reset();
  return result;
}

NcclResult FakeNccl::comm_abort(NcclHandle) {
  const NcclResult result = pass("comm_abort");
  comm_->aborted = true;
  comm_->batch.clear();  // which holds the communicator in turn
  network_->wake();
  comm_.reset();
  return result;
}

NcclResult FakeNccl::group_start() {
  const NcclResult result = pass("group_start");
  if (result == NcclResult::success) ++depth_;
  return result;
}

NcclResult FakeNccl::group_end() {
  EXPECT_EQ(depth_, 1);
  --depth_;
  bool never = false;
  const NcclResult result = pass("group_end", &never);
  std::vector<std::function<void()>> batch = std::move(puts_);
  std::move(takes_.begin(), takes_.end(), std::back_inserter(batch));
  puts_.clear();
  takes_.clear();
  if (result == NcclResult::system_error) return result;
  EXPECT_EQ(comm_->phase, Phase::ready);
  comm_->batch = std::move(batch);
  comm_->phase = Phase::launching;
  comm_->polls = 0;
  comm_->never = never;
  return NcclResult::in_progress;
}

void FakeNccl::queue(std::function<void()> put, std::function<void()> take) {
  EXPECT_EQ(depth_, 1);
  if (put) puts_.push_back(std::move(put));
  if (take) takes_.push_back(std::move(take));
}

void FakeNccl::put(int to, const void* bytes, size_t count) {
  network_->put(rank_, to, std::string(static_cast<const char*>(bytes), count));
}

NcclResult FakeNccl::send(const void* in, size_t count, NcclType type, int peer, NcclHandle,
                          const c10::Stream&) {
  EXPECT_GT(count, 0u);
  EXPECT_NE(peer, rank_);
  const size_t bytes = bytes_of(count, type);
  queue([=, this] { put(peer, in, bytes); }, {});
  return pass("send");
}

NcclResult FakeNccl::recv(void* out, size_t count, NcclType type, int peer, NcclHandle,
                          const c10::Stream&) {
  EXPECT_GT(count, 0u);
  EXPECT_NE(peer, rank_);
  const size_t bytes = bytes_of(count, type);
  queue({}, [=, this, owned = comm_] {
    const auto message = network_->take(peer, rank_, owned->aborted);
    if (!message) return;
    if (message->size() != bytes) {
      owned->error = NcclResult::invalid_usage;
    } else {
      std::memcpy(out, message->data(), bytes);
    }
  });
  return pass("recv");
}

NcclResult FakeNccl::all_gather(const void* in, void* out, size_t count, NcclType type, NcclHandle,
                                const c10::Stream&) {
  const size_t bytes = bytes_of(count, type);
  queue(
      [=, this] {
        for (int peer = 0; peer < network_->size(); ++peer) put(peer, in, bytes);
      },
      [=, this, owned = comm_] {
        for (int peer = 0; peer < network_->size(); ++peer) {
          const auto message = network_->take(peer, rank_, owned->aborted);
          if (!message) return;
          std::memcpy(static_cast<char*>(out) + static_cast<size_t>(peer) * bytes, message->data(),
                      bytes);
        }
      });
  return pass("all_gather");
}

// Adds up one message of every rank, as an all-reduce on a real network never would: in rank order.
void FakeNccl::sum(void* out, size_t count, NcclType type) {
  const std::shared_ptr<Communicator> owned = comm_;
  queue({}, [=, this] {
    const at::ScalarType dtype = dtype_of(type);
    const bool narrow = dtype == at::kHalf || dtype == at::kBFloat16;
    at::Tensor total;
    for (int peer = 0; peer < network_->size(); ++peer) {
      auto message = network_->take(peer, rank_, owned->aborted);
      if (!message) return;
      const at::Tensor part =
          at::from_blob(message->data(), {static_cast<int64_t>(count)}, dtype).clone();
      if (!total.defined()) {
        total = narrow ? part.to(at::kFloat) : part;
      } else {
        total.add_(part);
      }
    }
    const at::Tensor result = total.to(dtype);
    std::memcpy(out, result.const_data_ptr(), result.nbytes());
  });
}

NcclResult FakeNccl::all_reduce(const void* in, void* out, size_t count, NcclType type, NcclHandle,
                                const c10::Stream&) {
  queue(
      [=, this] {
        for (int peer = 0; peer < network_->size(); ++peer) put(peer, in, bytes_of(count, type));
      },
      {});
  sum(out, count, type);
  return pass("all_reduce");
}

NcclResult FakeNccl::reduce_scatter(const void* in, void* out, size_t count, NcclType type,
                                    NcclHandle, const c10::Stream&) {
  const size_t bytes = bytes_of(count, type);
  queue(
      [=, this] {
        for (int peer = 0; peer < network_->size(); ++peer) {
          put(peer, static_cast<const char*>(in) + static_cast<size_t>(peer) * bytes, bytes);
        }
      },
      {});
  sum(out, count, type);
  return pass("reduce_scatter");
}

NcclResult FakeNccl::broadcast(const void* in, void* out, size_t count, NcclType type, int root,
                               NcclHandle comm, const c10::Stream& stream) {
  const size_t bytes = bytes_of(count, type);
  if (rank_ == root) {
    queue(
        [=, this] {
          for (int peer = 0; peer < network_->size(); ++peer) {
            if (peer != rank_) put(peer, in, bytes);
          }
        },
        {});
  } else {
    recv(out, count, type, root, comm, stream);
  }
  return pass("broadcast");
}

std::string FakeNccl::get_error_string(NcclResult result) {
  return result == NcclResult::remote_error ? "remote process exited" : "unhandled system error";
}

NcclJob make_nccl_job(int size, NcclOptions options,
                      const std::function<void(FakeNccl&, int rank)>& prepare) {
  NcclJob job;
  job.bootstraps = join_job(size);
  const auto network = std::make_shared<FakeNetwork>(size);
  for (int rank = 0; rank < size; ++rank) {
    job.apis.push_back(std::make_shared<FakeNccl>(network, rank));
    if (prepare) prepare(*job.apis.back(), rank);
  }
  job.groups.resize(static_cast<size_t>(size));
  job.errors = errors_of_ranks(size, [&](int rank) {
    const auto index = static_cast<size_t>(rank);
    auto stream = std::make_unique<FakeStream>();
    job.apis[index]->use(*stream);
    job.groups[index] =
        make_nccl_group(job.bootstraps[index], job.apis[index], std::move(stream), options);
  });
  return job;
}

}  // namespace farskip::testing
