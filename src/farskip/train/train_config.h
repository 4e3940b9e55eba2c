#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "farskip/base/json.h"
#include "farskip/model/router_losses.h"
#include "farskip/train/adamw.h"
#include "farskip/train/learning_rate.h"

namespace farskip {

// A training run as one flat set of named settings: a JSON object, and a flag each on the command
// line. What a run was started with stands in its folder as config.json.
struct TrainConfig {
  std::string model, checkpoint, connectivity = "farskip";
  int layers = 0;

  std::string data, validation;
  int64_t sequence_length = 256, sequences = 16, micro_batches = 1;
  uint64_t seed = 1;

  int64_t steps = 1000;
  double learning_rate = 3e-4, final_learning_rate = 3e-5;
  int64_t warmup_steps = 50;
  std::string decay = "cosine";
  double beta1 = 0.9, beta2 = 0.95, epsilon = 1e-8, weight_decay = 0.1;
  bool decay_embeddings = true;
  double max_norm = 1.0;
  double balance_loss = 0, sequence_balance_loss = 0, router_z_loss = 0, bias_update_speed = 0;
  std::string dtype = "float32";
  bool deterministic = false;

  int data_parallel = 1, pipeline_stages = 1;
  std::string schedule = "overlapped", routing = "model";
  bool two_batch = false;
  int expert_chunks = 1, pieces = 1;
  std::string recompute = "none";
  double bucket_mib = 32;

  std::string out;
  int64_t log_every = 10, validate_every = 0, validation_sequences = 64;
  int64_t checkpoint_every = 0, keep = 2, keep_every = 0;

  LearningRateConfig rate() const;
  AdamwConfig optimizer() const;
  RouterLosses router_losses() const;
};

// Calls visit(name, field, text for people) for every setting, in the order of help and JSON.
template <typename Config, typename Visit>
void visit_settings(Config& c, Visit&& visit) {
  visit("model", c.model, "built-in name, config.json or checkpoint folder that says the sizes");
  visit("checkpoint", c.checkpoint, "checkpoint folder to start from; none: fresh weights");
  visit("layers", c.layers, "only the model's first layers; 0: all");
  visit("connectivity", c.connectivity, "a preset, or a JSON file");
  visit("data", c.data, "token file to train on (farskip tokenize)");
  visit("validation", c.validation, "token file to validate on");
  visit("sequence_length", c.sequence_length, "tokens of a sequence");
  visit("sequences", c.sequences, "sequences of a step, over all ranks");
  visit("micro_batches", c.micro_batches, "parts of a step whose gradients are added up");
  visit("seed", c.seed, "of fresh weights and of the order of the data");
  visit("steps", c.steps, "optimizer steps of the whole run");
  visit("learning_rate", c.learning_rate, "the peak, after the warm-up");
  visit("final_learning_rate", c.final_learning_rate, "where the decay ends");
  visit("warmup_steps", c.warmup_steps, "steps below the peak at the start");
  visit("decay", c.decay, "constant, linear or cosine");
  visit("beta1", c.beta1, "AdamW, mean of gradients");
  visit("beta2", c.beta2, "AdamW, mean of their squares");
  visit("epsilon", c.epsilon, "AdamW");
  visit("weight_decay", c.weight_decay, "AdamW, of matrices");
  visit("decay_embeddings", c.decay_embeddings, "weight decay also of embeddings");
  visit("max_norm", c.max_norm, "gradients are clipped to this norm; 0: not");
  visit("balance_loss", c.balance_loss,
        "coefficient of the loss of uneven expert loads over a micro-batch (DeepSeek-V2); 0: none");
  visit("sequence_balance_loss", c.sequence_balance_loss,
        "coefficient of that of uneven loads in each sequence (DeepSeek-V3); 0: none");
  visit("router_z_loss", c.router_z_loss,
        "coefficient of the loss of large router logits (ST-MoE); 0: none");
  visit("bias_update_speed", c.bias_update_speed,
        "what a step moves correction biases by, towards even loads (DeepSeek-V3); 0: not");
  visit("dtype", c.dtype,
        "float32 or bfloat16: of activations and of weights as read; masters are "
        "float32");
  visit("deterministic", c.deterministic,
        "on a GPU, kernels that have the same bits in every run: slower");
  visit("data_parallel", c.data_parallel,
        "sets of ranks that each share out all experts: expert parallelism is the ranks of a "
        "pipeline stage over this");
  visit("pipeline_stages", c.pipeline_stages,
        "runs of layers, each on ranks of its own, which micro-batches go through in turn");
  visit("schedule", c.schedule, "blocking, released or overlapped");
  visit("routing", c.routing, "model, or balanced: for measuring, meaningless as training");
  visit("two_batch", c.two_batch, "two micro-batches of each rank interleaved");
  visit("expert_chunks", c.expert_chunks,
        "groups of experts that dispatch and combine take in turn");
  visit("pieces", c.pieces, "pieces that attention and shared experts are cut into");
  visit("recompute", c.recompute,
        "activations computed again instead of kept: none, attention, experts, all, "
        "all-and-dispatch");
  visit("bucket_mib", c.bucket_mib, "gradients that are reduced at once, MiB");
  visit("out", c.out, "the run's folder");
  visit("log_every", c.log_every, "steps between lines of the log");
  visit("validate_every", c.validate_every, "steps between validations; 0: at the end only");
  visit("validation_sequences", c.validation_sequences, "sequences of a validation");
  visit("checkpoint_every", c.checkpoint_every, "steps between checkpoints; 0: at the end only");
  visit("keep", c.keep, "newest checkpoints that stay");
  visit("keep_every", c.keep_every, "steps between checkpoints that stay for good; 0: none");
}

// Takes over the settings that `json`, an object, names. Throws ConfigError for an unknown one or a
// value of another type.
void read_settings(TrainConfig& config, const Json& json, const std::string& where);
Json to_json(const TrainConfig& config);

// Throws ConfigError, or UsageError for what is missing, unless a run can start with it.
void check(const TrainConfig& config);

}  // namespace farskip
