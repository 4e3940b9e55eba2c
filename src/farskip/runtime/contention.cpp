#include "farskip/runtime/contention.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>
#include <vector>

#include "farskip/comm/host_gather.h"
#include "farskip/comm/ranks.h"

namespace farskip {
namespace {

constexpr Tag first_tag = -1000, mean_tag = -999;
constexpr int stretches = 5;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

double median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + values.size() / 2, values.end());
  return values[values.size() / 2];
}

// One rank's half of the benchmark: stretches with and without the other lane, in turn.
class Stretches {
 public:
  Stretches(Group& group, const ContentionOptions& options)
      : group_(group),
        stream_(c10::impl::VirtualGuardImpl(group.device().type()).getStream(group.device())) {
    const bool on_cpu = group.device().is_cpu();
    const auto on = at::TensorOptions(group.device()).dtype(on_cpu ? at::kFloat : at::kBFloat16);
    // Large enough to fill the device, small enough that several fit beside one exchange.
    const int64_t m = on_cpu ? 256 : 4096, n = on_cpu ? 512 : 4096;
    left_ = at::ones({m, n}, on);
    right_ = at::ones({n, n}, on);
    product_ = at::empty({m, n}, on);
    const int64_t bytes = on_cpu ? options.bytes : options.device_bytes;
    const int64_t rows = std::max<int64_t>(1, bytes / 1024 / group.size());
    rows_.assign(group.size(), rows);
    in_ = at::ones({rows * group.size(), 256}, on.dtype(at::kFloat));
    out_ = at::empty_like(in_);
    // As many products, and as many exchanges, as fill the asked time alone.
    const double seconds = on_cpu ? options.seconds : options.device_seconds;
    products_ = repeats(seconds, [&] { multiply(), finish_compute(); });
    exchanges_ = 0;
    exchange().synchronize();
    const double one = timed([&] { exchange().synchronize(); });
    const at::Tensor asked = at::ones({1}) * (seconds / std::max(one, 1e-5));
    const double share = gather_on_host(group_, asked, tag_--).mean().item<float>();
    exchanges_ = std::clamp(static_cast<int>(share), 1, 1000);
  }

  void run() {
    for (int i = 0; i < stretches; ++i) {
      meet();
      compute_alone_.push_back(timed([&] { multiply_all(); }));
      meet();
      communicate_alone_.push_back(timed([&] { post_all().back().synchronize(); }));
      meet();
      const Clock::time_point start = Clock::now();
      const Event origin = Event::record(stream_, /*timed=*/true);
      const std::vector<Work> works = post_all();
      const Event begun = Event::record(stream_, /*timed=*/true);
      for (int i = 0; i < products_; ++i) multiply();
      const Event done = Event::record(stream_, /*timed=*/true);
      finish_compute();
      compute_beside_.push_back(done.valid() ? done.seconds_since(begun) : seconds_since(start));
      works.back().synchronize();
      communicate_beside_.push_back(finished(works.back(), start, origin));
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
  template <typename Function>
  static double timed(Function function) {
    const Clock::time_point start = Clock::now();
    function();
    return seconds_since(start);
  }
  template <typename Function>
  static int repeats(double seconds, Function function) {
    function();
    const double one = timed([&] { function(), function(), function(); }) / 3;
    return std::clamp(static_cast<int>(seconds / one), 1, 100000);
  }

  // Seconds from the start, by the device's clock where it has one.
  static double finished(const Work& work, Clock::time_point start, const Event& origin) {
    if (origin.valid()) {
      if (const auto times = work.device_times(origin)) return times->finished;
    }
    return std::chrono::duration<double>(work.times().finished - start).count();
  }

  void meet() { group_.barrier(tag_--).synchronize(); }
  void multiply() { at::mm_out(product_, left_, right_); }
  void multiply_all() {
    for (int i = 0; i < products_; ++i) multiply();
    finish_compute();
  }
  void finish_compute() { Event::record(stream_).synchronize(); }
  Work exchange() { return group_.all_to_all(out_, in_, rows_, rows_, tag_--); }
  std::vector<Work> post_all() {
    std::vector<Work> works;
    for (int i = 0; i < exchanges_; ++i) works.push_back(exchange());
    return works;
  }

  Group& group_;
  const c10::Stream stream_;
  at::Tensor left_, right_, product_, in_, out_;
  std::vector<int64_t> rows_;
  int products_ = 1, exchanges_ = 1;
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
              Stretches stretches(group, options);
              stretches.run();
              const Contention found = mean_over_ranks(group, stretches.result());
              if (&group == groups[0].get()) mean = found;
            },
            {.pin_threads = true});
  return mean;
}

}  // namespace farskip
