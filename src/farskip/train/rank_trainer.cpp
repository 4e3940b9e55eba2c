#include "farskip/train/rank_trainer.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>

#include "farskip/comm/host_gather.h"
#include "farskip/graph/step_outputs.h"
#include "farskip/runtime/kernels.h"
#include "farskip/train/expert_loads.h"
#include "farskip/train/group_meeting.h"
#include "farskip/train/update_kernels.h"

namespace farskip {
namespace {

constexpr Tag sum_tag = -10, meeting_tag = -11;

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
      squares = output.item<double>();
    } else if (name == step_outputs::expert_loads) {
      expert_loads = expert_loads.defined() ? expert_loads + output : output;
    }
  }
};

KernelTable training_kernels() {
  KernelTable table = step_kernels();
  add_update_kernels(table);
  return table;
}

}  // namespace

RankTrainer::RankTrainer(const ModelConfig& model, const Placement& placement,
                         const TrainConfig& config, const TrainingPlan& plan, Group& group)
    : model_(model),
      placement_(placement),
      config_(config),
      plan_(plan),
      group_(group),
      store_(model, placement, group.size(), group.rank(), plan.buckets,
             config.dtype == "bfloat16" ? at::kBFloat16 : at::kFloat, at::kFloat, group.device()),
      state_(store_, config.optimizer(), config.max_norm),
      kernels_(training_kernels()),
      update_(model, placement, plan.update.graph, kernels_, store_.weights(), group,
              {.state = &state_, .gradients = &store_.gradients()}),
      accumulate_(model, placement, plan.accumulate.graph, kernels_, store_.weights(), group,
                  {.state = &state_, .gradients = &store_.gradients(), .timeline = false}),
      validate_(model, placement, plan.validate.graph, kernels_, store_.weights(), group,
                {.state = &state_, .timeline = false}),
      update_schedule_(plan.update.schedule) {}

std::vector<double> RankTrainer::sum_over_ranks(const std::vector<double>& own) {
  const at::Tensor all = gather_on_host(group_, at::tensor(own, at::kDouble), sum_tag);
  const double* value = all.const_data_ptr<double>();
  std::vector<double> sums(own.size(), 0);
  for (int rank = 0; rank < group_.size(); ++rank) {
    for (double& sum : sums) sum += *value++;
  }
  return sums;
}

Batch RankTrainer::batch_of_part(const TrainingData& data, int64_t step, int64_t part) const {
  Batch batch = data.batch(static_cast<uint64_t>(step), config_.sequences, config_.micro_batches,
                           part, group_.size(), group_.rank());
  batch.adds_gradients = part > 0;
  return batch;
}

bool RankTrainer::any(bool own) { return sum_over_ranks({own ? 1.0 : 0.0})[0] > 0; }

void RankTrainer::step_checked(const TrainingData& data, int64_t step) {
  Executor checked(model_, placement_, plan_.accumulate.graph, kernels_, store_.weights(), group_,
                   {.state = &state_, .gradients = &store_.gradients(), .check_finite = true});
  for (int64_t part = 0; part < config_.micro_batches; ++part) {
    checked.run(plan_.accumulate.schedule, batch_of_part(data, step, part));
  }
}

TrainingStep RankTrainer::step(const TrainingData& data, int64_t step) {
  state_.learning_rate = learning_rate(step, config_.steps, config_.rate());
  state_.update = step + 1;
  const int64_t parts = config_.micro_batches;
  OutputSums sums;
  for (int64_t part = 0; part + 1 < parts; ++part) {
    const Batch batch = batch_of_part(data, step, part);
    sums.add(plan_.accumulate.graph, accumulate_.run(plan_.accumulate.schedule, batch));
  }
  if (parts > 1) sums.losses = sum_over_ranks(sums.losses);  // what an update step gives is summed
  TrainingStep result;
  result.rank = update_.run(update_schedule_, batch_of_part(data, step, parts - 1));
  sums.add(plan_.update.graph, result.rank);
  result.loss = sums.losses[0];
  std::copy(sums.losses.begin() + 1, sums.losses.end(), result.router_losses.begin());
  result.gradient_norm = std::sqrt(sums.squares);
  result.learning_rate = state_.learning_rate;
  result.expert_loads = sums.expert_loads.defined()
                            ? sums.expert_loads
                            : at::zeros({0, model_.router.experts}, at::kLong);
  if (std::isfinite(result.loss) && std::isfinite(result.gradient_norm)) {
    update_correction_biases(result.expert_loads);
  }
  last_ = result.rank.timeline;
  return result;
}

void RankTrainer::update_correction_biases(const at::Tensor& expert_loads) {
  if (config_.bias_update_speed == 0) return;
  int64_t router = 0;
  for (int layer = 1; layer <= model_.layer_count(); ++layer) {
    if (!model_.layers[static_cast<size_t>(layer - 1)].routed) continue;
    const std::string bias = "layer." + std::to_string(layer) + ".router_bias";
    update_correction_bias(store_.weights().at(bias), expert_loads[router++],
                           config_.bias_update_speed);
  }
}

double RankTrainer::validate(const TrainingData& data, int64_t sequences) {
  const int64_t count = std::min<int64_t>(sequences, static_cast<int64_t>(data.windows()));
  const int64_t at_once = std::max<int64_t>(1, config_.sequences / config_.micro_batches);
  double sum = 0;
  for (int64_t first = 0; first < count; first += at_once) {
    const int64_t now = std::min(at_once, count - first);
    const Batch batch =
        data.in_order(static_cast<uint64_t>(first), now, group_.size(), group_.rank());
    const StepResult result = validate_.run(plan_.validate.schedule, batch);
    for (const at::Tensor& loss : result.outputs) {
      sum += loss.item<double>() * static_cast<double>(now);
    }
  }
  return sum_over_ranks({sum})[0] / static_cast<double>(count);
}

void RankTrainer::reschedule() {
  std::vector<double> own(plan_.update.graph.ops().size(), 0);
  for (const Span& span : last_.spans) own.at(static_cast<size_t>(span.op)) += span.seconds();
  Durations durations = sum_over_ranks(own);
  for (double& seconds : durations) seconds /= group_.size();
  update_schedule_ = rescheduled(plan_.update, config_, durations);
}

std::filesystem::path RankTrainer::save(const std::filesystem::path& folder,
                                        const TrainingPoint& point) {
  return save_checkpoint(folder, point, store_.saved(),
                         {.keep = static_cast<int>(config_.keep), .keep_every = config_.keep_every},
                         meeting_of(group_, meeting_tag));
}

TrainingPoint RankTrainer::load(const std::filesystem::path& checkpoint,
                                uint64_t model_fingerprint) {
  TrainingPoint point;
  store_.load([&](std::span<const StateShard> shards) {
    point = load_checkpoint(checkpoint, model_fingerprint, shards, meeting_of(group_, meeting_tag));
  });
  return point;
}

}  // namespace farskip
