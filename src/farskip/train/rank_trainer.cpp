#include "farskip/train/rank_trainer.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>

#include "farskip/graph/step_outputs.h"
#include "farskip/runtime/kernels.h"
#include "farskip/train/expert_loads.h"
#include "farskip/train/gradient_norm.h"
#include "farskip/train/update_kernels.h"

namespace farskip {
namespace {

constexpr Tag meeting_tag = -11;

// What the micro-batches of a step give out, added up.
struct OutputSums {
  std::vector<double> losses = std::vector<double>(1 + router_loss_count, 0.0);
  double squares = 0;
  at::Tensor expert_loads;

  void add(const Graph& graph, const StepResult& result) {
    for (size_t i = 0; i < result.outputs.size(); ++i) {
      add(graph.value(graph.outputs()[i]).name, result.outputs[i].cpu());
    }
  }

 private:
  void add(const std::string& name, const at::Tensor& output) {
    if (name == step_outputs::loss) {
      losses[0] += output.item<double>();
    } else if (name == step_outputs::router_losses) {
      for (int i = 0; i < router_loss_count; ++i) losses[1 + i] += output[i].item<double>();
    } else if (name == step_outputs::squares) {
      squares = rounded_squares(output);
    } else if (name == step_outputs::expert_loads) {
      expert_loads = expert_loads.defined() ? expert_loads + output : output;
    }
  }
};

ExecutorOptions without_timeline(ExecutorOptions options) {
  options.timeline = false;
  return options;
}

KernelTable training_kernels() {
  KernelTable table = step_kernels();
  add_update_kernels(table);
  return table;
}

}  // namespace

RankTrainer::RankTrainer(const ModelConfig& model, const Placement& placement,
                         const TrainConfig& config, const TrainingPlan& plan,
                         const TrainingRanks& ranks)
    : model_(model),
      placement_(placement),
      config_(config),
      plan_(plan),
      ranks_(ranks),
      store_(model, placement, ranks.within().size(), ranks.within().rank(), plan.parameters,
             plan.buckets, config.dtype == "bfloat16" ? at::kBFloat16 : at::kFloat, at::kFloat,
             ranks.within().device()),
      state_(store_, config.optimizer(), config.max_norm),
      kernels_(training_kernels()),
      shared_(ranks.within().device()),
      update_(model, placement, plan.update.graph, kernels_, store_.weights(), ranks.within(),
              options()),
      accumulate_(model, placement, plan.accumulate.graph, kernels_, store_.weights(),
                  ranks.within(), without_timeline(options())),
      validate_(model, placement, plan.validate.graph, kernels_, store_.weights(), ranks.within(),
                without_timeline(options())),
      update_schedule_(plan.update.schedule) {}

ExecutorOptions RankTrainer::options() {
  return {.state = &state_,
          .gradients = &store_.gradients(),
          .stages = ranks_.between(),
          .shared = &shared_};
}

Batch RankTrainer::batch_of_pass(const TrainingData& data, int64_t step, int64_t pass) const {
  Batch batch = data.batch(static_cast<uint64_t>(step), config_.sequences, config_.micro_batches,
                           pass * plan_.micro_batches, plan_.micro_batches, ranks_.within().size(),
                           ranks_.within().rank());
  batch.adds_gradients = pass > 0;
  return batch;
}

bool RankTrainer::any(bool own) { return ranks_.sum({own ? 1.0 : 0.0})[0] > 0; }

void RankTrainer::step_checked(const TrainingData& data, int64_t step) {
  ExecutorOptions checks = options();
  checks.check_finite = true;
  Executor checked(model_, placement_, plan_.accumulate.graph, kernels_, store_.weights(),
                   ranks_.within(), checks);
  for (int64_t pass = 0; pass < passes(); ++pass) {
    checked.run(plan_.accumulate.schedule, batch_of_pass(data, step, pass));
  }
}

TrainingStep RankTrainer::step(const TrainingData& data, int64_t step) {
  state_.learning_rate = learning_rate(step, config_.steps, config_.rate());
  state_.update = step + 1;
  OutputSums sums;
  for (int64_t pass = 0; pass + 1 < passes(); ++pass) {
    const Batch batch = batch_of_pass(data, step, pass);
    sums.add(plan_.accumulate.graph, accumulate_.run(plan_.accumulate.schedule, batch));
  }
  TrainingStep result;
  result.rank = update_.run(update_schedule_, batch_of_pass(data, step, passes() - 1));
  sums.add(plan_.update.graph, result.rank);
  const std::vector<double> losses = ranks_.sum(sums.losses);
  result.loss = losses[0];
  std::copy(losses.begin() + 1, losses.end(), result.router_losses.begin());
  result.gradient_norm = std::sqrt(sums.squares);
  result.learning_rate = state_.learning_rate;
  result.expert_loads = loads_of_all_layers(sums.expert_loads);
  if (std::isfinite(result.loss) && std::isfinite(result.gradient_norm)) {
    update_correction_biases(result.expert_loads);
  }
  last_ = result.rank.timeline;
  return result;
}

at::Tensor RankTrainer::loads_of_all_layers(const at::Tensor& own) const {
  if (own.defined() && ranks_.stages() == 1) return own;
  const int64_t routers = model_.moe_layer_count();
  const int64_t choices = model_.router.experts + model_.router.zero_experts;
  at::Tensor all = at::zeros({routers, choices}, at::kLong);
  if (own.defined()) all.narrow(0, plan_.first_router, own.size(0)).copy_(own);
  return ranks_.sum_over_stages(all);
}

void RankTrainer::update_correction_biases(const at::Tensor& expert_loads) {
  if (config_.bias_update_speed == 0) return;
  int64_t router = 0;
  for (int layer = 1; layer <= model_.layer_count(); ++layer) {
    if (!model_.layers[static_cast<size_t>(layer - 1)].routed) continue;
    const at::Tensor loads = expert_loads[router++];
    const auto bias = store_.weights().find("layer." + std::to_string(layer) + ".router_bias");
    if (bias == store_.weights().end()) continue;  // of another stage
    update_correction_bias(bias->second, loads, config_.bias_update_speed);
  }
}

double RankTrainer::validate(const TrainingData& data, int64_t sequences) {
  const int64_t count = std::min<int64_t>(sequences, static_cast<int64_t>(data.windows()));
  const int64_t at_once = std::max<int64_t>(1, config_.sequences / config_.micro_batches);
  double sum = 0;
  for (int64_t first = 0; first < count; first += at_once) {
    const int64_t now = std::min(at_once, count - first);
    const Batch batch = data.in_order(static_cast<uint64_t>(first), now, ranks_.within().size(),
                                      ranks_.within().rank());
    const StepResult result = validate_.run(plan_.validate.schedule, batch);
    for (const at::Tensor& loss : result.outputs) {
      sum += loss.item<double>() * static_cast<double>(now);
    }
  }
  return ranks_.sum({sum})[0] / static_cast<double>(count);
}

void RankTrainer::reschedule() {
  std::vector<double> own(plan_.update.graph.ops().size(), 0);
  for (const Span& span : last_.spans) own.at(static_cast<size_t>(span.op)) += span.seconds();
  Durations durations = ranks_.sum_within(own);
  for (double& seconds : durations) seconds /= ranks_.within().size();
  update_schedule_ = rescheduled(plan_.update, config_, durations,
                                 {.computes = ranks_.within().device().is_cpu()});
}

std::filesystem::path RankTrainer::save(const std::filesystem::path& folder,
                                        const TrainingPoint& point) {
  return save_checkpoint(folder, point, store_.saved(),
                         {.keep = static_cast<int>(config_.keep), .keep_every = config_.keep_every},
                         ranks_.meeting(meeting_tag));
}

TrainingPoint RankTrainer::load(const std::filesystem::path& checkpoint,
                                uint64_t model_fingerprint) {
  TrainingPoint point;
  store_.load([&](std::span<const StateShard> shards) {
    point = load_checkpoint(checkpoint, model_fingerprint, shards, ranks_.meeting(meeting_tag));
  });
  return point;
}

}  // namespace farskip
