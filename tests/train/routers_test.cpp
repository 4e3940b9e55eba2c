// Training that balances the loads of experts: by losses, and by correction biases.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "farskip/base/error.h"
#include "training_job.h"

namespace farskip::testing {
namespace {

TrainConfig with_losses(TrainConfig config) {
  config.balance_loss = 0.1;
  config.sequence_balance_loss = 0.05;
  config.router_z_loss = 0.01;
  return config;
}

// Of the most loaded expert of any layer over the mean, on average over the last ten steps.
double last_max_load(const TrainingJob::Run& run) {
  double sum = 0;
  for (size_t i = run.reports.size() - 10; i < run.reports.size(); ++i) {
    sum += *std::ranges::max_element(run.reports[i].max_loads);
  }
  return sum / 10;
}

// Relative, of all steps.
void expect_near(const TrainingJob::Run& expected, const TrainingJob::Run& found,
                 double tolerance) {
  ASSERT_EQ(expected.reports.size(), found.reports.size());
  for (size_t i = 0; i < expected.reports.size(); ++i) {
    const TrainReport &a = expected.reports[i], &b = found.reports[i];
    EXPECT_LT(std::abs(b.loss / a.loss - 1), tolerance) << "step " << a.step;
    for (size_t loss = 0; loss < a.router_losses.size(); ++loss) {
      EXPECT_LT(std::abs(b.router_losses[loss] / a.router_losses[loss] - 1), tolerance)
          << "step " << a.step << ", router loss " << loss;
    }
  }
  EXPECT_EQ(expected.reports[0].max_loads, found.reports[0].max_loads);
}

TEST(RouterTraining, RanksSetsAndMicroBatchesOfSequencesAgree) {
  const TrainingJob job;
  TrainConfig config = with_losses(job.config("alone"));
  config.micro_batches = 2;
  const TrainingJob::Run alone = job.run(config, {.ranks = 1});
  for (const auto& [ranks, sets] : {std::pair{2, 1}, {4, 1}, {4, 2}, {2, 2}}) {
    SCOPED_TRACE(std::to_string(ranks) + " ranks, " + std::to_string(sets) + " sets");
    config.data_parallel = sets;
    config.out = (job.folder() / (std::to_string(ranks) + "-" + std::to_string(sets))).string();
    expect_near(alone, job.run(config, {.ranks = ranks}), 2e-5);
  }
}

TEST(RouterTraining, TwoBatchIsTheSameFunction) {
  const TrainingJob job;
  TrainConfig config = with_losses(job.config("whole"));
  const TrainingJob::Run whole = job.run(config, {});
  config.out = (job.folder() / "halves").string();
  config.two_batch = true;
  expect_near(whole, job.run(config, {}), 2e-5);
}

TEST(RouterTraining, LossesAreReportedApartAndBalanceLoads) {
  const TrainingJob job;
  TrainConfig config = job.config("without");
  config.steps = 40;
  const TrainingJob::Run without = job.run(config, {});
  config.out = (job.folder() / "with").string();
  config.balance_loss = 0.2;
  const TrainingJob::Run with = job.run(config, {});
  EXPECT_EQ(without.reports[0].loss, with.reports[0].loss);
  EXPECT_EQ(without.reports[0].router_losses[0], 0);
  // At the start loads are near even: a coefficient for each layer with experts.
  const double layers = static_cast<double>(with.reports[0].max_loads.size());
  EXPECT_NEAR(with.reports[0].router_losses[0], 0.2 * layers, 0.02 * layers);
  EXPECT_LT(last_max_load(with), 0.85 * last_max_load(without));
}

TEST(RouterTraining, BiasesBalanceLoadsAndRunsResumeToTheBit) {
  const TrainingJob job("deepseek_v3");
  TrainConfig config = job.config("without");
  config.steps = 40;
  const TrainingJob::Run without = job.run(config, {});
  config.bias_update_speed = 0.02;
  config.out = (job.folder() / "with").string();
  const TrainingJob::Run with = job.run(config, {});
  EXPECT_EQ(without.reports[0].loss, with.reports[0].loss);
  EXPECT_LT(last_max_load(with), 0.85 * last_max_load(without));

  config.out = (job.folder() / "parts").string();
  job.run(config, {.stop_after = 7});
  const TrainingJob::Run rest = job.run(config, {.resume = true});
  EXPECT_EQ(with.result.loss, rest.result.loss);
  EXPECT_TRUE(state_bytes(with.saved.back()) == state_bytes(rest.saved.back()));

  config.out = (job.folder() / "alone").string();
  const TrainingJob::Run alone = job.run(config, {.ranks = 1});
  EXPECT_NEAR(alone.result.loss, with.result.loss, 1e-2 * with.result.loss);
  EXPECT_EQ(alone.reports[0].max_loads, with.reports[0].max_loads);
}

TEST(RouterTraining, SettingsThatMakeNoSenseAreRefused) {
  const TrainingJob job;
  auto refused = [&](auto change) {
    TrainConfig config = job.config("run");
    change(config);
    EXPECT_THROW(job.run(config, {}), ConfigError);
  };
  refused([](TrainConfig& config) { config.balance_loss = -1; });
  refused([](TrainConfig& config) { config.router_z_loss = std::nan(""); });
  refused([](TrainConfig& config) { config.sequence_balance_loss = INFINITY; });
  refused([](TrainConfig& config) { config.bias_update_speed = 0.001; });  // it has no biases
  refused([](TrainConfig& config) {
    config.balance_loss = 0.1;
    config.routing = "balanced";
  });
}

}  // namespace
}  // namespace farskip::testing
