#include "farskip/train/train_config.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>
#include <type_traits>
#include <utility>
#include <vector>

#include "farskip/base/error.h"
#include "farskip/graph/recompute.h"

namespace farskip {
namespace {

[[noreturn]] void refuse(const std::string& setting, const std::string& expected,
                         const std::string& found) {
  throw ConfigError("a setting of the run makes no sense",
                    {.where = setting, .expected = expected, .found = found});
}

void require_one_of(const std::string& setting, const std::string& value,
                    const std::vector<const char*>& allowed) {
  std::string list;
  for (const char* name : allowed) {
    if (value == name) return;
    list += (list.empty() ? "" : ", ") + std::string(name);
  }
  refuse(setting, list, value);
}

void require_at_least(const std::string& setting, int64_t value, int64_t least) {
  if (value < least) refuse(setting, std::to_string(least) + " or more", std::to_string(value));
}

std::vector<const char*> recompute_names() {
  std::vector<const char*> names;
  for (RecomputeKind kind : recompute_kinds()) names.push_back(to_string(kind));
  return names;
}

void check_routers(const TrainConfig& config) {
  bool any = false;
  for (const auto& [setting, value] : {std::pair("balance_loss", config.balance_loss),
                                       {"sequence_balance_loss", config.sequence_balance_loss},
                                       {"router_z_loss", config.router_z_loss},
                                       {"bias_update_speed", config.bias_update_speed}}) {
    if (!(value >= 0) || std::isinf(value)) {
      refuse(setting, "a number of 0 or more", std::to_string(value));
    }
    any |= value > 0;
  }
  if (any && config.routing != "model") {
    refuse("routing", "model, where routers are trained to balance loads", config.routing);
  }
}

Decay decay_of(const std::string& name) {
  return name == "constant" ? Decay::constant : name == "linear" ? Decay::linear : Decay::cosine;
}

}  // namespace

LearningRateConfig TrainConfig::rate() const {
  return {.peak = learning_rate,
          .floor = std::min(final_learning_rate, learning_rate),
          .warmup_steps = warmup_steps,
          .decay = decay_of(decay)};
}

AdamwConfig TrainConfig::optimizer() const {
  return {.beta1 = beta1,
          .beta2 = beta2,
          .epsilon = epsilon,
          .weight_decay = weight_decay,
          .decay_embeddings = decay_embeddings};
}

RouterLosses TrainConfig::router_losses() const {
  return {.balance = balance_loss, .sequence_balance = sequence_balance_loss, .z = router_z_loss};
}

void read_settings(TrainConfig& config, const Json& json, const std::string& where) {
  if (!json.is_object()) {
    throw ConfigError("settings of a run are a JSON object",
                      {.where = where, .found = abbreviate(json)});
  }
  std::set<std::string> known;
  visit_settings(config, [&](const char* name, auto& field, const char*) {
    known.insert(name);
    using Field = std::remove_reference_t<decltype(field)>;
    if (const auto value = optional<Field>(json, name, where)) field = *value;
  });
  for (const auto& [name, value] : json.items()) {
    if (known.count(name) != 0) continue;
    throw ConfigError("unknown setting of a run",
                      {.where = where, .found = name, .hint = "see farskip train --help"});
  }
}

Json to_json(const TrainConfig& config) {
  Json json = Json::object();
  visit_settings(config,
                 [&](const char* name, const auto& field, const char*) { json[name] = field; });
  return json;
}

void check(const TrainConfig& config) {
  auto require_given = [](const char* flag, const std::string& value) {
    if (value.empty()) throw UsageError("a run needs this setting", {.where = flag});
  };
  if (config.checkpoint.empty()) require_given("--model", config.model);
  require_given("--data", config.data);
  require_given("--out", config.out);
  require_at_least("layers", config.layers, 0);
  require_at_least("sequence_length", config.sequence_length, 1);
  require_at_least("sequences", config.sequences, 1);
  require_at_least("micro_batches", config.micro_batches, 1);
  if (config.sequences % config.micro_batches != 0) {
    refuse("micro_batches", "a divisor of " + std::to_string(config.sequences) + " sequences",
           std::to_string(config.micro_batches));
  }
  require_at_least("data_parallel", config.data_parallel, 1);
  require_at_least("pipeline_stages", config.pipeline_stages, 1);
  if (config.pipeline_stages > 1 && config.two_batch) {
    refuse("two_batch", "false with pipeline stages: micro_batches says how many are under way",
           "true");
  }
  require_at_least("steps", config.steps, 1);
  require_at_least("log_every", config.log_every, 1);
  require_at_least("validate_every", config.validate_every, 0);
  require_at_least("validation_sequences", config.validation_sequences, 1);
  require_at_least("checkpoint_every", config.checkpoint_every, 0);
  require_at_least("keep", config.keep, 1);
  require_at_least("keep_every", config.keep_every, 0);
  require_one_of("decay", config.decay, {"constant", "linear", "cosine"});
  require_one_of("dtype", config.dtype, {"float32", "bfloat16"});
  require_one_of("schedule", config.schedule, {"blocking", "released", "overlapped"});
  require_one_of("routing", config.routing, {"model", "balanced"});
  require_one_of("recompute", config.recompute, recompute_names());
  if (!(config.max_norm >= 0)) refuse("max_norm", "0 or more", std::to_string(config.max_norm));
  if (!(config.bucket_mib > 0)) {
    refuse("bucket_mib", "more than 0", std::to_string(config.bucket_mib));
  }
  check_routers(config);
  check(config.rate());
  check(config.optimizer());
}

}  // namespace farskip
