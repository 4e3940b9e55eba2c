#include "../gpu.h"

#include <gtest/gtest.h>

#include "farskip/nn/determinism.h"
#include "training_job.h"

// Training on a GPU, whose ranks are threads that share it.
namespace farskip::testing {
namespace {

const at::Device gpu(at::kCUDA, 0);

class GpuTraining : public GpuTest {
 protected:
  void TearDown() override { use_deterministic_kernels(false); }
};

// With the kernels that are fastest, too.
TEST_F(GpuTraining, FollowsTheCpu) {
  const TrainingJob job;
  TrainConfig config = job.config("cpu");
  config.steps = 50;
  const std::vector<double> expected = job.run(config, {.ranks = 1}).losses();
  for (int ranks : {1, 2}) {
    SCOPED_TRACE(ranks);
    config.out = (job.folder() / ("gpu-" + std::to_string(ranks))).string();
    const std::vector<double> losses = job.run(config, {.ranks = ranks, .device = gpu}).losses();
    expect_near(expected, losses, 5, 1e-5);
    expect_near(expected, losses, 50, 1e-3);
  }
}

TEST_F(GpuTraining, SchedulesAndStagesChangeNoBitOfDeterministicRuns) {
  use_deterministic_kernels(true);
  const TrainingJob job("deepseek_v3");
  TrainConfig config = job.config("overlapped");
  config.micro_batches = 4;
  config.balance_loss = 0.01;
  const TrainingJob::Run overlapped = job.run(config, {.ranks = 2, .device = gpu});
  config.schedule = "blocking";
  config.out = (job.folder() / "blocking").string();
  EXPECT_EQ(overlapped.losses(), job.run(config, {.ranks = 2, .device = gpu}).losses());
  config.schedule = "overlapped";
  config.pipeline_stages = 2;
  config.out = (job.folder() / "stages").string();
  const TrainingJob::Run stages = job.run(config, {.ranks = 4, .device = gpu});
  EXPECT_EQ(overlapped.losses(), stages.losses());
  for (size_t i = 0; i < overlapped.reports.size(); ++i) {
    EXPECT_EQ(overlapped.reports[i].gradient_norm, stages.reports[i].gradient_norm) << i;
  }
  EXPECT_EQ(overlapped.result.validation_loss, stages.result.validation_loss);
}

TEST_F(GpuTraining, ResumedDeterministicRunIsTheSameToTheBit) {
  use_deterministic_kernels(true);
  const TrainingJob job;
  TrainConfig config = job.config("through");
  config.dtype = "bfloat16";
  const TrainingJob::Run through = job.run(config, {.ranks = 2, .device = gpu});
  const std::vector<double> losses = through.losses();
  config.out = (job.folder() / "stopped").string();
  job.run(config, {.ranks = 2, .stop_after = 3, .device = gpu});
  const TrainingJob::Run resumed = job.run(config, {.ranks = 2, .resume = true, .device = gpu});
  EXPECT_EQ(std::vector(losses.begin() + 3, losses.end()), resumed.losses());
  EXPECT_EQ(state_bytes(through.saved.back()), state_bytes(resumed.saved.back()));
}

}  // namespace
}  // namespace farskip::testing
