#include "farskip/nn/router.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones_like.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <span>
#include <string>
#include <vector>

#include "farskip/base/error.h"
#include "farskip/cuda/routing.h"
#include "farskip/nn/check.h"
#include "farskip/nn/gpu.h"
#include "farskip/nn/linear.h"
#include "farskip/nn/tensor_ops.h"

namespace farskip {
namespace {

using Scoring = RouterConfig::Scoring;

void check_config(const RouterConfig& config) {
  const auto refuse = [](const char* field, const std::string& expected, int found) {
    throw ConfigError("router configuration contradicts itself",
                      {.where = std::string("router.") + field,
                       .expected = expected,
                       .found = std::to_string(found),
                       .hint = {}});
  };
  if (config.zero_experts > 0 || config.logit_bias) {
    throw UnsupportedError("this router has no kernel",
                           {.where = "router",
                            .expected = "no zero experts and no logit bias",
                            .found = config.logit_bias ? "a logit bias" : "zero experts",
                            .hint = {}});
  }
  if (config.experts < 1) refuse("experts", "1 or more", config.experts);
  if (config.groups < 1 || config.experts % config.groups != 0) {
    refuse("groups", "a divisor of " + std::to_string(config.experts), config.groups);
  }
  if (config.kept_groups < 1 || config.kept_groups > config.groups) {
    refuse("kept_groups", "1 to " + std::to_string(config.groups), config.kept_groups);
  }
  const int size = config.experts / config.groups;
  const int eligible = config.kept_groups * size;
  if (config.top_k < 1 || config.top_k > eligible) {
    refuse("top_k", "1 to " + std::to_string(eligible), config.top_k);
  }
  if (config.groups > 1 && size < 2 &&
      config.group_score == RouterConfig::GroupScore::sum_of_best_two) {
    refuse("groups", "groups of two experts or more", config.groups);
  }
}

// Routes one token at a time; holds the scratch space for it.
class TokenRouter {
 public:
  explicit TokenRouter(const RouterConfig& config)
      : config_(config),
        scores_(config.experts),
        choice_(config.experts),
        group_scores_(config.groups) {}

  // logits [experts] and bias [experts] (or empty) in; top_k ids and weights out.
  void route(std::span<const float> logits, std::span<const float> bias, int64_t* experts,
             float* weights) {
    score(logits);
    for (size_t e = 0; e < scores_.size(); ++e) {
      choice_[e] = bias.empty() ? scores_[e] : scores_[e] + bias[e];
    }
    if (config_.groups > 1) limit_groups();
    choose(choice_, config_.top_k, chosen_);
    for (int slot = 0; slot < config_.top_k; ++slot) {
      experts[slot] = chosen_[slot];
      weights[slot] = scores_[chosen_[slot]];
    }
    weigh({weights, static_cast<size_t>(config_.top_k)});
  }

 private:
  static void softmax(std::span<float> values) {
    const float largest = *std::max_element(values.begin(), values.end());
    float sum = 0.0f;
    for (float& value : values) sum += value = std::exp(value - largest);
    for (float& value : values) value /= sum;
  }

  void score(std::span<const float> logits) {
    std::copy(logits.begin(), logits.end(), scores_.begin());
    if (config_.scoring == Scoring::softmax) softmax(scores_);
    if (config_.scoring == Scoring::sigmoid) {
      for (float& value : scores_) value = 1.0f / (1.0f + std::exp(-value));
    }
  }

  void limit_groups() {
    const size_t size = choice_.size() / group_scores_.size();
    for (size_t group = 0; group < group_scores_.size(); ++group) {
      const auto first = choice_.begin() + group * size;
      float best = *first, second = -INFINITY;
      for (auto value = first + 1; value != first + size; ++value) {
        second = std::max(second, std::min(best, *value));
        best = std::max(best, *value);
      }
      const bool one = config_.group_score == RouterConfig::GroupScore::best;
      group_scores_[group] = one ? best : best + second;
    }
    choose(group_scores_, config_.kept_groups, kept_);
    for (size_t expert = 0; expert < choice_.size(); ++expert) {
      if (!std::binary_search(kept_.begin(), kept_.end(), static_cast<int64_t>(expert / size))) {
        choice_[expert] = static_cast<float>(config_.masked_score);
      }
    }
  }

  // Ids of the k largest values, ascending. Insertion with a strict comparison: the lower id wins
  // a tie, and k distinct ids come out even if values are NaN.
  static void choose(std::span<const float> values, int k, std::vector<int64_t>& chosen) {
    chosen.clear();
    for (size_t id = 0; id < values.size(); ++id) {
      const bool full = static_cast<int>(chosen.size()) == k;
      if (full && !(values[id] > values[chosen.back()])) continue;
      if (full) chosen.pop_back();
      auto place = chosen.end();
      while (place != chosen.begin() && values[id] > values[*(place - 1)]) --place;
      chosen.insert(place, static_cast<int64_t>(id));
    }
    std::sort(chosen.begin(), chosen.end());
  }

  void weigh(std::span<float> weights) const {
    if (config_.scoring == Scoring::softmax_of_chosen) softmax(weights);
    float divisor = 1.0f;
    if (config_.normalize) {
      divisor = std::accumulate(weights.begin(), weights.end(), 0.0f) +
                static_cast<float>(config_.normalize_epsilon);
    }
    for (float& weight : weights) weight = weight / divisor * static_cast<float>(config_.scale);
  }

  const RouterConfig& config_;
  std::vector<float> scores_, choice_, group_scores_;
  std::vector<int64_t> chosen_, kept_;
};

// The rule as the CUDA kernels take it.
cuda::RouterRule rule_of(const RouterConfig& config) {
  cuda::RouterRule rule{.experts = config.experts,
                        .top_k = config.top_k,
                        .groups = config.groups,
                        .kept_groups = config.kept_groups,
                        .masked_score = static_cast<float>(config.masked_score),
                        .normalize = config.normalize,
                        .normalize_epsilon = static_cast<float>(config.normalize_epsilon),
                        .scale = static_cast<float>(config.scale)};
  using Rule = cuda::RouterRule;
  rule.scoring = config.scoring == Scoring::softmax   ? Rule::Scoring::softmax
                 : config.scoring == Scoring::sigmoid ? Rule::Scoring::sigmoid
                                                      : Rule::Scoring::softmax_of_chosen;
  rule.group_score = config.group_score == RouterConfig::GroupScore::best
                         ? Rule::GroupScore::best
                         : Rule::GroupScore::sum_of_best_two;
  return rule;
}

}  // namespace

at::Tensor router_logits(const RouterConfig& config, const at::Tensor& x,
                         const at::Tensor& weight) {
  require_shape(x, {-1, -1}, "router input");
  require_shape(weight, {config.experts, x.size(1)}, "router weight");
  if (has_gpu_kernels(x) && x.scalar_type() == weight.scalar_type()) {
    return cuda::router_logits(x, weight, config.fp32).to(at::kFloat);
  }
  if (config.fp32) return linear(x.to(at::kFloat), weight.to(at::kFloat));
  return linear(x, weight).to(at::kFloat);
}

Routing choose_experts(const RouterConfig& config, const at::Tensor& logits,
                       const at::Tensor& correction_bias) {
  check_config(config);
  require_shape(logits, {-1, config.experts}, "router logits");
  require_dtype(logits, at::kFloat, "router logits");
  if (config.correction_bias) {
    require_shape(correction_bias, {config.experts}, "router bias");
    require_dtype(correction_bias, at::kFloat, "router bias");
  }
  const at::Tensor bias = config.correction_bias ? correction_bias.contiguous() : at::Tensor();
  const int64_t tokens = logits.size(0);
  if (has_gpu_kernels(logits)) {
    const Routing routing{at::empty({tokens, config.top_k}, logits.options().dtype(at::kLong)),
                          at::empty({tokens, config.top_k}, logits.options().dtype(at::kFloat))};
    cuda::choose_experts_out({routing.experts, routing.weights}, rule_of(config),
                             logits.contiguous(), bias);
    return routing;
  }
  if (!logits.is_cpu()) return tensor_ops::choose_experts(config, logits, bias);

  const size_t experts = static_cast<size_t>(config.experts);
  Routing routing{at::empty({tokens, config.top_k}, at::kLong),
                  at::empty({tokens, config.top_k}, at::kFloat)};
  const at::Tensor dense = logits.contiguous();
  const float* logit = dense.const_data_ptr<float>();
  const std::span<const float> bias_values =
      bias.defined() ? std::span<const float>(bias.const_data_ptr<float>(), experts)
                     : std::span<const float>();
  int64_t* chosen = routing.experts.mutable_data_ptr<int64_t>();
  float* weights = routing.weights.mutable_data_ptr<float>();
  TokenRouter router(config);
  for (int64_t token = 0; token < tokens; ++token) {
    router.route({logit + token * config.experts, experts}, bias_values,
                 chosen + token * config.top_k, weights + token * config.top_k);
  }
  return routing;
}

void expert_loads_out(const at::Tensor& loads, std::span<const at::Tensor> experts) {
  require_shape(loads, {-1, -1}, "expert loads");
  require_dtype(loads, at::kLong, "expert loads");
  at::Tensor(loads).zero_();
  for (size_t i = 0; i < experts.size(); ++i) {
    const at::Tensor ids = experts[i].reshape({-1});
    loads[static_cast<int64_t>(i) % loads.size(0)].scatter_add_(0, ids, at::ones_like(ids));
  }
}

Routing route(const RouterConfig& config, const at::Tensor& x, const at::Tensor& weight,
              const at::Tensor& correction_bias) {
  return choose_experts(config, router_logits(config, x, weight), correction_bias);
}

Routing balanced_routing(int64_t tokens, int64_t experts, int64_t top_k, int64_t offset) {
  if (tokens < 0 || offset < 0 || top_k < 1 || top_k > experts) {
    throw ConfigError("no balanced routing of this shape",
                      {.where = "balanced routing",
                       .expected = "tokens, offset >= 0 and 1 <= top_k <= experts",
                       .found = std::to_string(tokens) + " tokens from " + std::to_string(offset) +
                                ", top " + std::to_string(top_k) + " of " + std::to_string(experts),
                       .hint = {}});
  }
  int64_t stride = std::max<int64_t>(1, experts / top_k);
  while (std::gcd(stride, experts) != 1) ++stride;
  Routing routing{at::empty({tokens, top_k}, at::kLong),
                  at::full({tokens, top_k}, 1.0 / static_cast<double>(top_k), at::kFloat)};
  int64_t* chosen = routing.experts.mutable_data_ptr<int64_t>();
  int64_t slot = offset % experts;
  for (int64_t token = 0; token < tokens; ++token, chosen += top_k) {
    for (int64_t j = 0; j < top_k; ++j, ++slot) chosen[j] = slot % experts * stride % experts;
    std::sort(chosen, chosen + top_k);
  }
  return routing;
}

}  // namespace farskip
