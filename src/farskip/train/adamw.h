#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "farskip/io/weight_specs.h"

namespace farskip {

// What of AdamW stays the same over a run.
struct AdamwConfig {
  double beta1 = 0.9, beta2 = 0.95;
  double epsilon = 1e-8;
  double weight_decay = 0.1;
  bool decay_embeddings = true;
};

// Throws ConfigError unless betas are in [0, 1), epsilon > 0 and weight_decay >= 0, all finite.
void check(const AdamwConfig& config);

// The weight decay of a parameter: matrices have it, norms and biases never, embeddings if asked.
double weight_decay_of(WeightRole role, const AdamwConfig& config);

// All that one update depends on besides the tensors.
struct AdamwStep {
  double learning_rate = 0;
  double beta1 = 0.9, beta2 = 0.95, epsilon = 1e-8;
  double weight_decay = 0;
  double gradient_scale = 1;  // multiplies gradients: clipping, or a mean over micro-batches
  int64_t step = 1;           // updates of these moments, this one counted
};

// One update of AdamW (arXiv 1711.05101, algorithm 2, with the decay scaled by the learning rate
// alone), element by element, with g = gradient_scale x gradient and t = step:
//
//   m += (1 - beta1) (g - m)            v += (1 - beta2) (g g - v)
//   master = (1 - learning_rate weight_decay) master
//            - learning_rate / (1 - beta1^t) m / (sqrt(v / (1 - beta2^t)) + epsilon)
//
// master, m and v: fp32 [n], contiguous, updated in place. gradient: fp32 or bf16 [n], contiguous.
// parameter: fp32 or bf16 [n], contiguous, receives the new master; undefined where the model reads
// the master itself. All on one device, none overlapping another. n may be 0. An element's new
// value depends on its own old ones alone: bits are the same however a parameter is cut and on any
// number of threads. On a CPU moments below the smallest normal number become 0.
// Throws Error for other shapes or dtypes, ConfigError for a step below 1.
void adamw_step(const at::Tensor& master, const at::Tensor& m, const at::Tensor& v,
                const at::Tensor& gradient, const at::Tensor& parameter, const AdamwStep& step);

namespace tensor_ops {

// The same in ATen operators alone, for devices without a loop here; arguments have been checked.
void adamw_step(const at::Tensor& master, const at::Tensor& m, const at::Tensor& v,
                const at::Tensor& gradient, const at::Tensor& parameter, const AdamwStep& step);

}  // namespace tensor_ops
}  // namespace farskip
