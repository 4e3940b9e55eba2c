#include <ATen/ops/ne.h>
#include <gtest/gtest.h>

#include "farskip/base/random.h"
#include "farskip/comm/local.h"
#include "farskip/io/checkpoint.h"
#include "farskip/runtime/session.h"
#include "farskip/train/checkpoint.h"
#include "farskip/train/export.h"
#include "training_job.h"

namespace farskip::testing {
namespace {

TokenBatch made_up_tokens(int64_t sequences, int64_t length, uint64_t vocabulary) {
  Random random(3);
  TokenBatch batch{.ids = {}, .lengths = std::vector<int64_t>(sequences, length), .width = length};
  for (int64_t i = 0; i < sequences * length; ++i) {
    batch.ids.push_back(static_cast<int64_t>(random.below(vocabulary)));
  }
  return batch;
}

// By layer: the experts of each token, by what a run saved last.
RoutingRecord choices(const TrainingJob::Run& run, const std::filesystem::path& folder) {
  const TrainingCheckpoint trained(run.saved.back());
  export_checkpoint(folder, trained.point().model_config, trained.point().connectivity,
                    weights_of_checkpoint(trained), {.dtype = at::kFloat});
  const Checkpoint checkpoint(folder);
  const ModelConfig& model = checkpoint.config();
  const Placement alone = Placement::contiguous(model.router.experts, 1);
  Session session(model, alone, load_weights(checkpoint, model, alone, std::vector{0}, at::kFloat),
                  make_local_groups(1));
  const TokenBatch tokens = made_up_tokens(64, 24, 60);
  const PlannedStep step = plan_step(model, Connectivity::preset("farskip", model.layers), 1,
                                     tokens.lengths, {.schedule = "blocking"});
  return session.run(step, tokens, {.record_routing = true}).routing;
}

// Rounding differs with the number of ranks; what the routers learn does not.
TEST(Train, RanksLearnToChooseTheSameExperts) {
  const TrainingJob job;
  RoutingRecord alone;
  for (const int ranks : {1, 2, 4}) {
    TrainConfig config = job.config("ranks-" + std::to_string(ranks));
    config.steps = 50;
    const RoutingRecord found =
        choices(job.run(config, {.ranks = ranks}), job.folder() / ("of-" + std::to_string(ranks)));
    if (ranks == 1) alone = found;
    int64_t others = 0, all = 0;
    for (const auto& [layer, routing] : found) {
      others += at::ne(routing.experts, alone.at(layer).experts).sum().item<int64_t>();
      all += routing.experts.numel();
    }
    EXPECT_GT(all, 1000);
    EXPECT_LE(static_cast<double>(others), 0.001 * static_cast<double>(all)) << ranks << " ranks";
  }
}

}  // namespace
}  // namespace farskip::testing
