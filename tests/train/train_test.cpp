#include "farskip/train/train.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "../base/error_of.h"
#include "farskip/base/error.h"
#include "farskip/train/training_plan.h"
#include "training_job.h"

namespace farskip::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

// An eighth of the tokens come at random out of 60: 1.1 nats is what can be reached.
TEST(Train, SixtyStepsLearnMostOfTheText) {
  const TrainingJob job;
  TrainConfig config = job.config("run");
  config.steps = 60;
  const TrainingJob::Run run = job.run(config, {.ranks = 2});
  EXPECT_GT(run.reports.front().loss, 5.5);
  EXPECT_LT(run.result.loss, 2.2);
  EXPECT_LT(*run.result.validation_loss, 2.2);
  EXPECT_EQ(run.result.steps, 60);
  EXPECT_FALSE(run.result.stopped);
}

TEST(Train, RanksAgree) {
  const TrainingJob job;
  std::vector<double> alone;
  for (int ranks : {1, 2, 4}) {
    TrainConfig config = job.config("ranks-" + std::to_string(ranks));
    config.steps = 50;
    const std::vector<double> losses = job.run(config, {.ranks = ranks}).losses();
    if (ranks == 1) alone = losses;
    SCOPED_TRACE(ranks);
    expect_near(alone, losses, 5, 1e-5);
    expect_near(alone, losses, 50, 1e-3);
  }
}

// Expert parallelism times data parallelism: 2 x 2 and 1 x 3 ranks, resumed as 4 x 1.
TEST(Train, SetsOfRanksAgree) {
  const TrainingJob job;
  TrainConfig config = job.config("alone");
  config.steps = 50;
  const std::vector<double> alone = job.run(config, {.ranks = 1}).losses();
  for (const auto& [ranks, sets] : {std::pair{4, 2}, {3, 3}}) {
    SCOPED_TRACE(std::to_string(ranks) + " ranks, " + std::to_string(sets) + " sets");
    config.out = (job.folder() / ("sets-" + std::to_string(sets))).string();
    config.data_parallel = sets;
    const std::vector<double> losses = job.run(config, {.ranks = ranks}).losses();
    expect_near(alone, losses, 5, 1e-5);
    expect_near(alone, losses, 50, 1e-3);
  }
  config.steps = 6;
  config.data_parallel = 2;
  config.schedule = "blocking";
  config.out = (job.folder() / "blocking").string();
  const std::vector<double> blocking = job.run(config, {.ranks = 4}).losses();
  config.schedule = "overlapped";
  config.out = (job.folder() / "overlapped").string();
  const TrainingJob::Run first = job.run(config, {.ranks = 4, .stop_after = 3});
  config.data_parallel = 1;
  const std::vector<double> rest = job.run(config, {.ranks = 4, .resume = true}).losses();
  EXPECT_EQ(first.losses(), std::vector(blocking.begin(), blocking.begin() + 3));
  expect_near({blocking.begin() + 3, blocking.end()}, rest, 3, 1e-5);
}

TEST(Train, PipelineStagesChangeNoBit) {
  const TrainingJob job("deepseek_v3");
  TrainConfig config = job.config("whole");
  config.micro_batches = 4;
  config.balance_loss = 0.01;
  config.bias_update_speed = 0.001;
  config.max_norm = 0.5;  // clips
  const TrainingJob::Run whole = job.run(config, {.ranks = 2});
  for (int stages : {2, 4}) {
    SCOPED_TRACE(stages);
    config.out = (job.folder() / ("stages-" + std::to_string(stages))).string();
    config.pipeline_stages = stages;
    const TrainingJob::Run run = job.run(config, {.ranks = 2 * stages});
    EXPECT_EQ(whole.losses(), run.losses());
    EXPECT_EQ(whole.result.validation_loss, run.result.validation_loss);
    for (size_t i = 0; i < whole.reports.size(); ++i) {
      EXPECT_EQ(whole.reports[i].gradient_norm, run.reports[i].gradient_norm) << i;
      EXPECT_EQ(whole.reports[i].router_losses, run.reports[i].router_losses) << i;
      EXPECT_EQ(whole.reports[i].max_loads, run.reports[i].max_loads) << i;
    }
    EXPECT_GT(run.reports[0].gradient_norm, config.max_norm);
  }
}

// Expert parallelism, data parallelism and stages at once.
TEST(Train, PipelineStagesOfSetsOfRanksChangeNoBit) {
  const TrainingJob job;
  TrainConfig config = job.config("whole");
  config.micro_batches = 2;
  config.data_parallel = 2;
  const std::vector<double> whole = job.run(config, {.ranks = 4}).losses();
  config.out = (job.folder() / "stages").string();
  config.pipeline_stages = 2;
  config.expert_chunks = config.pieces = 2;
  config.recompute = "all";
  EXPECT_EQ(whole, job.run(config, {.ranks = 8}).losses());
}

TEST(Train, ResumesOnAnotherNumberOfStages) {
  const TrainingJob job;
  TrainConfig config = job.config("whole");
  config.micro_batches = 4;
  config.steps = 8;
  const std::vector<double> whole = job.run(config, {}).losses();
  for (const auto& [before, behind] : {std::pair{1, 4}, {2, 1}, {4, 2}}) {
    SCOPED_TRACE(std::to_string(before) + ", then " + std::to_string(behind));
    config.out = (job.folder() / ("stages-" + std::to_string(before))).string();
    config.pipeline_stages = before;
    std::vector<double> losses = job.run(config, {.ranks = 2 * before, .stop_after = 3}).losses();
    config.pipeline_stages = behind;
    for (double loss : job.run(config, {.ranks = 2 * behind, .resume = true}).losses()) {
      losses.push_back(loss);
    }
    EXPECT_EQ(whole, losses);
  }
}

TEST(Train, SchedulesAndRewritesChangeNoBit) {
  const TrainingJob job;
  TrainConfig config = job.config("blocking");
  config.schedule = "blocking";
  const TrainingJob::Run blocking = job.run(config, {.ranks = 2});
  const std::string blocking_state = state_bytes(blocking.saved.back());
  for (const char* name : {"overlapped", "chunks"}) {
    config = job.config(name);
    if (std::string(name) == "chunks") config.expert_chunks = config.pieces = 2;
    const TrainingJob::Run run = job.run(config, {.ranks = 2});
    EXPECT_EQ(blocking.losses(), run.losses()) << name;
    EXPECT_TRUE(blocking_state == state_bytes(run.saved.back())) << name;
  }
}

TEST(Train, RecomputationHoldsLessAndChangesNoBit) {
  const TrainingJob job;
  TrainConfig config = job.config("kept");
  config.micro_batches = 2;
  const TrainingJob::Run kept = job.run(config, {});
  for (const char* kind : {"experts", "all"}) {
    config.out = (job.folder() / kind).string();
    config.recompute = kind;
    const TrainingJob::Run run = job.run(config, {});
    EXPECT_EQ(kept.losses(), run.losses()) << kind;
    EXPECT_TRUE(state_bytes(kept.saved.back()) == state_bytes(run.saved.back())) << kind;
    // Of the first step: later ones are scheduled by how long ops took.
    EXPECT_LT(run.reports.front().peak_activation_bytes,
              kept.reports.front().peak_activation_bytes);
  }
  config.recompute = "most";
  EXPECT_THROW(job.run(config, {}), ConfigError);
}

// Validation and checkpoints between two lines of the log count neither as steps nor as time.
TEST(Train, ThroughputIsThatOfTheStepsAlone) {
  const TrainingJob job;
  TrainConfig config = job.config("run");
  config.steps = 12;
  config.log_every = 4;
  config.validate_every = config.checkpoint_every = 3;
  const TrainingJob::Run run = job.run(config, {});
  double shortest = 1e9;
  for (const auto& report : run.reports) shortest = std::min(shortest, report.step_seconds);
  const auto tokens = static_cast<double>(config.sequences * config.sequence_length);
  ASSERT_EQ(run.reports.size(), 4u);
  for (const auto& report : run.reports) {
    EXPECT_GT(tokens / report.tokens_per_second, 0.5 * shortest) << "step " << report.step;
  }
}

TEST(Train, BucketsChangeNothingButRounding) {
  const TrainingJob job;
  TrainConfig config = job.config("large");
  config.bucket_mib = 100;
  const std::vector<double> large = job.run(config, {}).losses();
  config = job.config("small");
  config.bucket_mib = 1e-6;
  EXPECT_EQ(large, job.run(config, {}).losses());
}

TEST(Train, MicroBatchesAddUp) {
  const TrainingJob job;
  std::vector<double> whole;
  for (int64_t parts : {1, 2, 4}) {
    TrainConfig config = job.config("parts-" + std::to_string(parts));
    config.micro_batches = parts;
    const std::vector<double> losses = job.run(config, {}).losses();
    if (parts == 1) whole = losses;
    expect_near(whole, losses, 6, 1e-5);
  }
}

TEST(Train, ResumedRunIsTheSameToTheBit) {
  const TrainingJob job;
  for (int64_t parts : {1, 2}) {
    TrainConfig config = job.config("whole" + std::to_string(parts));
    config.micro_batches = parts;
    config.steps = 8;
    const TrainingJob::Run whole = job.run(config, {});
    config.out = (job.folder() / ("parts" + std::to_string(parts))).string();
    const TrainingJob::Run first = job.run(config, {.stop_after = 3});
    EXPECT_TRUE(first.result.stopped);
    EXPECT_EQ(first.result.steps, 3);
    const TrainingJob::Run second = job.run(config, {.resume = true});
    std::vector<double> losses = first.losses();
    for (double loss : second.losses()) losses.push_back(loss);
    EXPECT_EQ(whole.losses(), losses);
    EXPECT_TRUE(state_bytes(whole.saved.back()) == state_bytes(second.saved.back()));
    EXPECT_EQ(*whole.result.validation_loss, *second.result.validation_loss);
  }
}

TEST(Train, ResumesOnOtherRanks) {
  const TrainingJob job;
  TrainConfig config = job.config("whole");
  config.steps = 8;
  const std::vector<double> whole = job.run(config, {}).losses();
  const std::vector<double> rest(whole.begin() + 3, whole.end());
  for (int ranks : {1, 3, 4}) {
    config.out = (job.folder() / ("on-" + std::to_string(ranks))).string();
    job.run(config, {.stop_after = 3});
    expect_near(rest, job.run(config, {.ranks = ranks, .resume = true}).losses(), 5, 1e-5);
  }
}

TEST(Train, Bfloat16FollowsFloat32) {
  const TrainingJob job;
  TrainConfig config = job.config("fp32");
  config.steps = 200;
  config.log_every = 50;
  const TrainingJob::Run exact = job.run(config, {.ranks = 1});
  config.out = (job.folder() / "bf16").string();
  config.dtype = "bfloat16";
  const TrainingJob::Run rounded = job.run(config, {.ranks = 1});
  EXPECT_NEAR(*exact.result.validation_loss, *rounded.result.validation_loss,
              0.02 * *exact.result.validation_loss);
  EXPECT_NE(exact.result.loss, rounded.result.loss);
}

TEST(Train, ValueThatIsNotFiniteIsNamed) {
  const TrainingJob job;
  const TrainConfig config = job.config("nan");
  auto spoil = [](std::vector<Weights>& weights) {
    weights[1].at("layer.3.experts.down")[1].fill_(std::numeric_limits<float>::infinity());
  };
  EXPECT_THROW(job.run(config, {.change_weights = spoil}), NumericError);
  EXPECT_THAT(error_of([&] { job.run(config, {.change_weights = spoil}); }),
              AllOf(HasSubstr("step 1"), HasSubstr("rank 1"), HasSubstr("experts of layer 3"),
                    HasSubstr("expert rows")));
  EXPECT_FALSE(std::filesystem::exists(job.folder() / "nan" / "step-00000001"));
}

TEST(Train, ValueThatIsNotFiniteIsNamedByItsStage) {
  const TrainingJob job;
  TrainConfig config = job.config("nan");
  config.micro_batches = config.pipeline_stages = 2;
  auto spoil = [](std::vector<Weights>& weights) {
    weights[3].at("layer.3.experts.down")[1].fill_(std::numeric_limits<float>::infinity());
  };
  EXPECT_THAT(error_of([&] { job.run(config, {.ranks = 4, .change_weights = spoil}); }),
              AllOf(HasSubstr("step 1"), HasSubstr("experts of layer 3")));
}

TEST(Train, StagesThatDoNotFitAreRefused) {
  const TrainingJob job;
  TrainConfig config = job.config("run");
  config.pipeline_stages = 2;
  EXPECT_THAT(error_of([&] { training_placement(config, {}, 3); }),
              AllOf(HasSubstr("--pipeline-stages"), HasSubstr("3 ranks")));
  config.two_batch = true;
  EXPECT_THAT(error_of([&] { job.run(config, {.ranks = 4}); }), HasSubstr("two_batch"));
  config.two_batch = false;
  config.pipeline_stages = 5;
  EXPECT_THAT(error_of([&] { job.run(config, {.ranks = 5}); }),
              AllOf(HasSubstr("stages do not fit the layers"), HasSubstr("1 to 4")));
}

TEST(Train, FoldersAndSettingsOfOtherRunsAreRefused) {
  const TrainingJob job;
  TrainConfig config = job.config("run");
  EXPECT_THAT(error_of([&] { job.run(config, {.resume = true}); }),
              HasSubstr("no whole checkpoint"));
  job.run(config, {.stop_after = 2});
  EXPECT_THAT(error_of([&] { job.run(config, {}); }),
              AllOf(HasSubstr("holds a run already"), HasSubstr("--resume")));
  EXPECT_THAT(error_of([&] { job.run(config, {.resume = true, .connectivity = "standard"}); }),
              HasSubstr("another connectivity"));
  config.seed = 2;
  EXPECT_THAT(error_of([&] { job.run(config, {.resume = true}); }), HasSubstr("seed"));
  config.seed = 1;
  config.micro_batches = 3;
  EXPECT_THROW(job.run(config, {.resume = true}), ConfigError);
  config.micro_batches = 1;
  config.sequence_length = 1 << 20;
  EXPECT_THROW(job.run(config, {}), ConfigError);
}

}  // namespace
}  // namespace farskip::testing
