#include "farskip/runtime/contention.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>
#include <vector>

#include "farskip/base/median.h"
#include "farskip/comm/host_gather.h"
#include "farskip/comm/ranks.h"

namespace farskip {
namespace {

constexpr Tag first_tag = -1000, mean_tag = -999;
constexpr int turns = 3;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// One rank's half of the benchmark: bursts of products, exchanges, or a burst beside each exchange.
class Bursts {
 public:
  Bursts(Group& group, const ContentionOptions& options)
      : group_(group),
        stream_(c10::impl::VirtualGuardImpl(group.device().type()).getStream(group.device())) {
    const bool on_cpu = group.device().is_cpu();
    const auto on = at::TensorOptions(group.device()).dtype(on_cpu ? at::kFloat : at::kBFloat16);
    // Large enough to fill the device, small enough that several fit beside one exchange.
    const int64_t m = on_cpu ? 256 : 4096, n = on_cpu ? 512 : 4096;
    // Products of equal numbers draw less power.
    left_ = at::randn({m, n}, at::detail::createCPUGenerator(1), at::kFloat).to(on);
    right_ = at::randn({n, n}, at::detail::createCPUGenerator(2), at::kFloat).to(on);
    product_ = at::empty({m, n}, on);
    const int64_t bytes = on_cpu ? options.bytes : options.device_bytes;
    const int64_t rows = std::max<int64_t>(1, bytes / 1024 / group.size());
    rows_.assign(group.size(), rows);
    in_ = at::ones({rows * group.size(), 256}, on.dtype(at::kFloat));
    out_ = at::empty_like(in_);
    set_counts(options);
  }

  void run() {
    for (int i = 0; i < turns; ++i) {
      communicate_alone_.push_back(turn({.exchanges = true}).communication);
      compute_alone_.push_back(turn({.multiplies = true}).compute);
      const Seconds beside = turn({.multiplies = true, .exchanges = true});
      compute_beside_.push_back(beside.compute);
      communicate_beside_.push_back(beside.communication);
    }
  }

  // Time lost per time that both ran, as the factor by which a lane is slower meanwhile.
  Contention result() const {
    auto factor = [](double alone, double beside, double other_alone) {
      const double both = std::min(alone, other_alone);
      const double lost = std::max(0.0, beside - alone);
      return both > 0 ? (both + lost) / both : 1.0;
    };
    const double compute = median(compute_alone_), link = median(communicate_alone_);
    return {std::min(4.0, factor(compute, median(compute_beside_), link)),
            std::min(4.0, factor(link, median(communicate_beside_), compute))};
  }

 private:
  struct Seconds {
    double compute = 0, communication = 0;
  };
  struct Turn {
    bool multiplies = false, exchanges = false;
  };
  struct Burst {
    Event begun, done;
    double host_seconds = 0;
    Work exchange;
  };

  // The same on all ranks: they exchange equally often.
  void set_counts(const ContentionOptions& options) {
    multiply(), exchange(Event::record(stream_)).synchronize();
    const double product = timed([&] { multiply(), multiply(), multiply(), finish(); }) / 3;
    const double one = timed([&] { exchange(Event::record(stream_)).synchronize(); });
    const at::Tensor own = at::tensor({product, one}, at::kDouble).view({1, 2});
    const at::Tensor mean = gather_on_host(group_, own, tag_--).mean(0);
    const double beside = std::max(mean[1].item<double>(), 1e-5) / options.share;
    products_ = std::clamp(static_cast<int>(beside / mean[0].item<double>()), 1, 10000);
    bursts_ = std::clamp(static_cast<int>(options.seconds / beside), 1, 500);
  }

  Seconds turn(Turn turn) {
    group_.barrier(tag_--).synchronize();
    const Event origin = Event::record(stream_, /*timed=*/true);
    std::vector<Burst> bursts(bursts_);
    for (Burst& burst : bursts) {
      if (turn.exchanges) burst.exchange = exchange(Event::record(stream_));
      burst.begun = Event::record(stream_, /*timed=*/true);
      burst.host_seconds = timed([&] {
        for (int i = 0; turn.multiplies && i < products_; ++i) multiply();
      });
      burst.done = Event::record(stream_, /*timed=*/true);
      if (turn.exchanges) burst.exchange.wait(stream_);
    }
    finish();
    Seconds sum;
    for (const Burst& burst : bursts) {
      sum.compute +=
          burst.done.valid() ? burst.done.seconds_since(burst.begun) : burst.host_seconds;
      if (!turn.exchanges) continue;
      burst.exchange.synchronize();
      sum.communication += seconds_of(burst.exchange, origin);
    }
    return sum;
  }

  template <typename Function>
  static double timed(Function function) {
    const Clock::time_point start = Clock::now();
    function();
    return seconds_since(start);
  }

  // By the device's clock where it has one.
  static double seconds_of(const Work& work, const Event& origin) {
    if (const auto times = work.device_times(origin)) return times->finished - times->started;
    const WorkTimes times = work.times();
    return std::chrono::duration<double>(times.finished - times.started).count();
  }

  void multiply() { at::mm_out(product_, left_, right_); }
  void finish() { Event::record(stream_).synchronize(); }
  Work exchange(const Event& ready) {
    return group_.all_to_all(out_, in_, rows_, rows_, tag_--, ready);
  }

  Group& group_;
  const c10::Stream stream_;
  at::Tensor left_, right_, product_, in_, out_;
  std::vector<int64_t> rows_;
  int products_ = 1, bursts_ = 1;  // of a burst, of a turn
  Tag tag_ = first_tag;
  std::vector<double> compute_alone_, compute_beside_, communicate_alone_, communicate_beside_;
};

Contention mean_over_ranks(Group& group, const Contention& own) {
  const std::vector<double> values = {own.compute, own.communication};
  const at::Tensor all =
      gather_on_host(group, at::tensor(values, at::kDouble).view({1, 2}), mean_tag);
  const at::Tensor mean = all.mean(0);
  return {mean[0].item<double>(), mean[1].item<double>()};
}

}  // namespace

Contention measure_contention(const std::vector<std::unique_ptr<Group>>& groups,
                              const ContentionOptions& options) {
  if (groups.empty() || groups[0]->size() < 2) return {};
  Contention mean;
  run_ranks(groups,
            [&](Group& group) {
              Bursts bursts(group, options);
              bursts.run();
              const Contention found = mean_over_ranks(group, bursts.result());
              if (&group == groups[0].get()) mean = found;
            },
            {.pin_threads = true});
  return mean;
}

}  // namespace farskip
