#include "farskip/comm/nccl.h"

#include <atomic>
#include <cstring>
#include <deque>
#include <exception>
#include <thread>
#include <vector>

#include "farskip/base/threads.h"
#include "farskip/comm/nccl_launch.h"
#include "farskip/comm/nccl_work.h"
#include "farskip/comm/part_bootstrap.h"
#include "farskip/comm/two_way.h"

namespace farskip {
namespace {

constexpr std::chrono::milliseconds busy_pause{1}, idle_pause{20};  // of the watchdog
constexpr std::chrono::seconds longest_grace{5};  // for a collective after a rank's goodbye

class NcclGroup final : public Group {
 public:
  NcclGroup(std::shared_ptr<Bootstrap> bootstrap, std::shared_ptr<NcclApi> api,
            std::unique_ptr<CommStream> stream, const NcclOptions& options);
  ~NcclGroup() override;

  int rank() const override { return bootstrap_->rank(); }
  int size() const override { return bootstrap_->size(); }
  at::Device device() const override { return stream_->device(); }
  c10::Stream stream() const override { return stream_->stream(); }
  void abort(const CommError& error) noexcept override { status_->fail(error.what()); }
  Traffic traffic() const override;
  std::string describe() const override;

  // Meets every rank on every kind of connection, so that the first collectives of a step need not.
  void warm_up();

 private:
  Work post(Collective collective) override;
  void check_left(const Collective& collective) const;
  void watch();
  void look();            // watchdog
  void check_goodbyes();  // watchdog
  size_t settle() const;  // how many are unfinished
  void drain(const Deadline& deadline);
  NcclCommunicator connect();

  const std::shared_ptr<Bootstrap> bootstrap_;
  const std::shared_ptr<NcclApi> api_;
  const std::unique_ptr<CommStream> stream_;
  const NcclOptions options_;
  const int uncaught_;  // exceptions under way when this began
  const std::string version_;
  const std::shared_ptr<GroupStatus> status_;
  NcclCommunicator communicator_;
  const NcclLauncher launcher_;
  std::optional<Deadline> grace_;  // watchdog: since a rank said goodbye

  mutable std::mutex mutex_;                             // guards the rest
  mutable std::deque<std::shared_ptr<NcclWork>> works_;  // unfinished, in stream order
  mutable std::vector<std::shared_ptr<NcclWork>>
      stuck_;  // failed, with tensors in the device's use
  // Failed while NCCL, on threads of its own, may still have been launching: ended by the abort.
  std::vector<std::shared_ptr<NcclWork>> unlaunched_;
  mutable Traffic traffic_;

  std::atomic<bool> stopping_ = false;
  std::thread watchdog_;  // last: starts when everything else is there
};

std::string version_text(NcclApi& api) {
  int version = 0;
  if (api.get_version(&version) != NcclResult::success) return "of unknown version";
  return std::to_string(version / 10000) + "." + std::to_string(version / 100 % 100) + "." +
         std::to_string(version % 100);
}

// Tells the other ranks of an error before it goes on to the caller.
template <typename Function>
auto or_fail(Bootstrap& bootstrap, const Function& function) {
  try {
    return function();
  } catch (const std::exception& error) {
    bootstrap.fail("rank " + std::to_string(bootstrap.rank()) + ": " + error.what());
    throw;
  }
}

NcclUniqueId agree_on_id(Bootstrap& bootstrap, NcclApi& api, const std::string& version,
                         const NcclOptions& options) {
  const Fact facts[] = {{"the NCCL version", version},
                        {"the order of sums", options.ordered ? "ordered" : "native"}};
  agree(bootstrap, facts);
  NcclUniqueId id{};
  if (bootstrap.rank() == 0) {
    const NcclResult result = api.get_unique_id(&id);
    if (result != NcclResult::success) {
      throw CommError("NCCL failed",
                      {.where = "ncclGetUniqueId",
                       .found = api.get_error_string(result) + ": " + api.get_last_error(nullptr),
                       .hint = "NCCL_SOCKET_IFNAME names the network interface"});
    }
  }
  const std::string bytes = bootstrap.broadcast({id.data(), id.size()});
  if (bytes.size() != id.size()) {
    throw CommError("no NCCL id", {.where = "bootstrap",
                                   .expected = std::to_string(id.size()) + " bytes",
                                   .found = std::to_string(bytes.size())});
  }
  std::memcpy(id.data(), bytes.data(), id.size());
  return id;
}

NcclCommunicator NcclGroup::connect() {
  return or_fail(*bootstrap_, [&] {
    const NcclUniqueId id = agree_on_id(*bootstrap_, *api_, version_, options_);
    const auto check = [&] {
      if (const auto reason = bootstrap_->failure()) {
        throw CommError("the job failed",
                        {.where = "rank " + std::to_string(rank()), .found = *reason});
      }
    };
    return NcclCommunicator(api_, rank(), size(), id, device(), Deadline(options_.deadline), check);
  });
}

at::Tensor make_token(CommStream& stream) {
  const at::Tensor token = stream.empty({1}, at::kInt);
  stream.run([token] { token.zero_(); });
  return token;
}

NcclGroup::NcclGroup(std::shared_ptr<Bootstrap> bootstrap, std::shared_ptr<NcclApi> api,
                     std::unique_ptr<CommStream> stream, const NcclOptions& options)
    : bootstrap_(std::move(bootstrap)),
      api_(std::move(api)),
      stream_(std::move(stream)),
      options_(options),
      uncaught_(std::uncaught_exceptions()),
      version_(version_text(*api_)),
      status_(std::make_shared<GroupStatus>(bootstrap_, options_.deadline)),
      communicator_(connect()),
      launcher_{communicator_, *stream_, options_.ordered,
                or_fail(*bootstrap_, [this] { return make_token(*stream_); }),
                [this] { status_->check({.rank = rank(), .size = size()}); }},
      watchdog_([this] { watch(); }) {}

NcclGroup::~NcclGroup() {
  if (std::uncaught_exceptions() > uncaught_) {
    status_->fail("rank " + std::to_string(rank()) + " stopped with an error");
  } else if (settle() > 0) {
    status_->fail("rank " + std::to_string(rank()) + " ended with unfinished collectives");
  }
  stopping_ = true;
  status_->wake();
  watchdog_.join();
  const Deadline deadline(options_.deadline);
  if (status_->failure()) {
    communicator_.abort();
    drain(deadline);
  } else {
    communicator_.finish(deadline, [this] { return status_->failure().has_value(); });
  }
}

void NcclGroup::warm_up() {
  or_fail(*bootstrap_, [&] {
    const auto ranks = static_cast<int64_t>(size());
    const at::Tensor in = stream_->empty({ranks}, at::kByte);
    const at::Tensor out = stream_->empty({ranks}, at::kByte);
    const std::vector<int64_t> rows(static_cast<size_t>(size()), 1);
    all_to_all(out, in, rows, rows, -1).synchronize();
    barrier(-1).synchronize();
  });
  settle();
  const std::lock_guard lock(mutex_);
  traffic_ = {};
}

void NcclGroup::check_left(const Collective& collective) const {
  const std::vector<int> left = bootstrap_->left();
  if (left.empty()) return;
  throw CommError("a rank has left the job",
                  {.where = collective.name(),
                   .expected = "the same collectives on every rank",
                   .found = "rank " + std::to_string(left[0]) + " has said goodbye"});
}

Work NcclGroup::post(Collective collective) {
  status_->check(collective);
  check_left(collective);
  // Lazily copied memory becomes this tensor's own here, on the thread that owns the tensor.
  if (collective.out.defined()) collective.out.mutable_data_ptr();
  const Event ready = collective.ready;
  auto work = std::make_shared<NcclWork>(status_, std::move(collective), options_.timed);
  try {
    stream_->wait_for(ready);
    work->begin(stream_->record(options_.timed));
    const at::Tensor scratch = launcher_.scratch(work->collective());
    work->keep(scratch);
    launcher_.launch(work->collective(), scratch, Deadline(options_.deadline));
    work->launched(stream_->record(options_.timed));
  } catch (const std::exception& error) {
    status_->fail(work->collective().name() + ": " + error.what());
    const std::lock_guard lock(mutex_);
    unlaunched_.push_back(work);
    throw group_failure(work->collective(), status_->failure().value_or(error.what()));
  }
  bool was_idle = false;
  {
    const std::lock_guard lock(mutex_);
    was_idle = works_.empty();
    works_.push_back(work);
  }
  if (was_idle) status_->wake();
  return Work(std::move(work));
}

void NcclGroup::watch() {
  name_thread("nccl " + std::to_string(rank()));
  api_->enter_polling_thread();
  while (!stopping_) {
    status_->sleep(settle() > 0 ? busy_pause : idle_pause);
    look();
  }
}

void NcclGroup::look() {
  if (const auto error = communicator_.error()) {
    status_->fail("rank " + std::to_string(rank()) + ": " + *error);
  }
  if (settle() > 0) {
    std::shared_ptr<NcclWork> oldest;
    {
      const std::lock_guard lock(mutex_);
      if (!works_.empty()) oldest = works_.front();
    }
    if (oldest) oldest->check_overdue();
    check_goodbyes();
  }
  if (!status_->failure()) return;
  // In this order: an abort makes collectives look finished.
  settle();
  communicator_.abort();
}

void NcclGroup::check_goodbyes() {
  const std::vector<int> left = bootstrap_->left();
  if (left.empty()) return;
  if (!grace_) {
    grace_.emplace(std::min<std::chrono::duration<double>>(options_.deadline, longest_grace));
  }
  // A rank ends when its own collectives are done: those of the others follow at once, or never.
  if (grace_->passed()) {
    status_->fail("rank " + std::to_string(rank()) + " has an unfinished collective, but rank " +
                  std::to_string(left[0]) + " has left");
  }
}

size_t NcclGroup::settle() const {
  const std::lock_guard lock(mutex_);
  std::erase_if(stuck_, [](const auto& work) { return work->ended(); });
  while (!works_.empty() && works_.front()->look()) {
    const std::shared_ptr<NcclWork> work = std::move(works_.front());
    works_.pop_front();
    if (work->failed()) {
      stuck_.push_back(work);
      continue;
    }
    traffic_.add(work->bytes());
  }
  return works_.size();
}

// Waits until the device is through with every tensor, which an abort brings about.
void NcclGroup::drain(const Deadline& deadline) {
  for (std::shared_ptr<NcclWork>& work : unlaunched_) {
    try {
      work->launched(stream_->record(false));
    } catch (const std::exception&) {
      // The device itself failed, and touches nothing any more.
    }
    stuck_.push_back(std::move(work));
  }
  unlaunched_.clear();
  while (true) {
    settle();
    {
      const std::lock_guard lock(mutex_);
      if (stuck_.empty()) return;
    }
    if (deadline.passed()) return;
    std::this_thread::sleep_for(std::chrono::microseconds(200));
  }
}

Traffic NcclGroup::traffic() const {
  settle();
  const std::lock_guard lock(mutex_);
  return traffic_;
}

std::string NcclGroup::describe() const {
  return "nccl " + version_ + (options_.ordered ? ", ordered sums" : "");
}

}  // namespace

std::unique_ptr<Group> make_nccl_group(std::shared_ptr<Bootstrap> bootstrap,
                                       std::shared_ptr<NcclApi> api,
                                       std::unique_ptr<CommStream> stream, NcclOptions options) {
  const double seconds = options.deadline.count();
  if (!(seconds > 0) || seconds >= 1e8) {
    throw UsageError("wrong deadline", {.expected = "a positive number of seconds below 1e8",
                                        .found = std::to_string(seconds)});
  }
  auto group =
      std::make_unique<NcclGroup>(std::move(bootstrap), std::move(api), std::move(stream), options);
  group->warm_up();
  return group;
}

StageRank make_nccl_stage(std::shared_ptr<Bootstrap> bootstrap, at::Device device, int stages,
                          NcclOptions options) {
  if (stages < 1 || bootstrap->size() % stages != 0) {
    throw UsageError("ranks do not divide into stages",
                     {.expected = "a divisor of " + std::to_string(bootstrap->size()) + " ranks",
                      .found = std::to_string(stages)});
  }
  const int ranks = bootstrap->size() / stages;
  const auto within = part_of_job(bootstrap, bootstrap->rank() / ranks);
  const auto between = part_of_job(bootstrap, bootstrap->rank() % ranks);
  auto open = [&](const std::shared_ptr<Bootstrap>& part) {
    return make_nccl_group(part, device, options);
  };
  StageRank rank;
  rank.within = open(within);
  auto collectives = open(between), up = open(between), down = open(between);
  rank.between = make_two_way(std::move(collectives), std::move(up), std::move(down));
  return rank;
}

std::unique_ptr<Group> make_nccl_group(std::shared_ptr<Bootstrap> bootstrap, at::Device device,
                                       NcclOptions options) {
  std::shared_ptr<NcclApi> api = load_nccl();
  auto stream = or_fail(*bootstrap, [&] { return make_device_stream(device); });
  return make_nccl_group(std::move(bootstrap), std::move(api), std::move(stream), options);
}

}  // namespace farskip
