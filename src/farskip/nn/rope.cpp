#include "farskip/nn/rope.h"

#include <ATen/Dispatch.h>
#include <ATen/OpMathType.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <string>

#include "farskip/base/error.h"
#include "farskip/cuda/device.h"
#include "farskip/cuda/rope.h"
#include "farskip/nn/check.h"
#include "farskip/nn/tensor_ops.h"

namespace farskip {
namespace {

void check_config(const RopeConfig& config) {
  if (config.dims <= 0 || config.dims % 2 != 0) {
    throw ConfigError("rotary embedding needs pairs of dimensions",
                      {.where = "rope.dims",
                       .expected = "a positive even number",
                       .found = std::to_string(config.dims),
                       .hint = {}});
  }
  if (!(config.theta > 1.0)) {
    throw ConfigError("rotary base is out of range", {.where = "rope.theta",
                                                      .expected = "more than 1",
                                                      .found = std::to_string(config.theta),
                                                      .hint = {}});
  }
  if (config.scaling == RopeConfig::Scaling::none) return;
  if (!(config.factor > 0.0)) {
    throw ConfigError("rotary scaling is out of range", {.where = "rope.factor",
                                                         .expected = "more than 0",
                                                         .found = std::to_string(config.factor),
                                                         .hint = {}});
  }
  if (config.scaling != RopeConfig::Scaling::linear && config.original_max_position <= 0) {
    throw ConfigError("rotary scaling needs the original context length",
                      {.where = "rope.original_max_position",
                       .expected = "a positive number",
                       .found = std::to_string(config.original_max_position),
                       .hint = "set original_max_position_embeddings in config.json"});
  }
}

double yarn_mscale(double factor, double mscale) {
  return factor <= 1.0 ? 1.0 : 0.1 * mscale * std::log(factor) + 1.0;
}

double yarn_magnitude(const RopeConfig& config) {
  if (config.attention_factor > 0.0) return config.attention_factor;
  if (config.mscale > 0.0 && config.mscale_all_dim > 0.0) {
    return yarn_mscale(config.factor, config.mscale) /
           yarn_mscale(config.factor, config.mscale_all_dim);
  }
  return yarn_mscale(config.factor, 1.0);
}

// The pair, as a fraction of an index, that makes `turns` full turns over the original context.
double pair_with_turns(const RopeConfig& config, double turns) {
  const double context = static_cast<double>(config.original_max_position);
  return config.dims * std::log(context / (turns * 2.0 * std::numbers::pi)) /
         (2.0 * std::log(config.theta));
}

// Fast pairs keep their frequency, slow ones are interpolated, those between are blended.
void scale_yarn(const RopeConfig& config, std::vector<double>& frequencies) {
  double low = pair_with_turns(config, config.beta_fast);
  double high = pair_with_turns(config, config.beta_slow);
  if (config.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, config.dims - 1.0);
  if (low == high) high += 0.001;
  for (size_t i = 0; i < frequencies.size(); ++i) {
    const double slow = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
    frequencies[i] *= slow / config.factor + (1.0 - slow);
  }
}

void scale_llama3(const RopeConfig& config, std::vector<double>& frequencies) {
  const double context = static_cast<double>(config.original_max_position);
  const double band = config.high_freq_factor - config.low_freq_factor;
  for (double& frequency : frequencies) {
    const double turns = context * frequency / (2.0 * std::numbers::pi);
    const double fast = turns < config.low_freq_factor    ? 0.0
                        : turns > config.high_freq_factor ? 1.0
                                                          : (turns - config.low_freq_factor) / band;
    frequency *= (1.0 - fast) / config.factor + fast;
  }
}

template <typename scalar_t>
void rotate_head(scalar_t* x, const float* cos, const float* sin, int64_t pairs, bool interleaved) {
  using real = at::opmath_type<scalar_t>;
  const int64_t step = interleaved ? 2 : 1;
  const int64_t distance = interleaved ? 1 : pairs;
  for (int64_t i = 0; i < pairs; ++i) {
    const real first = static_cast<real>(x[i * step]);
    const real second = static_cast<real>(x[i * step + distance]);
    x[i * step] = static_cast<scalar_t>(first * cos[i] - second * sin[i]);
    x[i * step + distance] = static_cast<scalar_t>(second * cos[i] + first * sin[i]);
  }
}

}  // namespace

RopeFrequencies rope_frequencies(const RopeConfig& config) {
  check_config(config);
  std::vector<double> frequencies(config.dims / 2);
  for (size_t i = 0; i < frequencies.size(); ++i) {
    frequencies[i] = std::pow(config.theta, -2.0 * static_cast<double>(i) / config.dims);
  }
  RopeFrequencies result;
  switch (config.scaling) {
    case RopeConfig::Scaling::none:
      break;
    case RopeConfig::Scaling::linear:
      for (double& frequency : frequencies) frequency /= config.factor;
      break;
    case RopeConfig::Scaling::yarn:
      scale_yarn(config, frequencies);
      result.magnitude = static_cast<float>(yarn_magnitude(config));
      break;
    case RopeConfig::Scaling::llama3:
      scale_llama3(config, frequencies);
      break;
  }
  result.radians.assign(frequencies.begin(), frequencies.end());
  return result;
}

RopeTable rope_cos_sin(const RopeConfig& config, const at::Tensor& positions) {
  require_shape(positions, {-1}, "rope positions");
  require_dtype(positions, at::kLong, "rope positions");
  const RopeFrequencies frequencies = rope_frequencies(config);
  const int64_t tokens = positions.size(0);
  const int64_t pairs = static_cast<int64_t>(frequencies.radians.size());
  const bool has_kernel = cuda_is_built() && positions.is_cuda();
  if (!positions.is_cpu() && !has_kernel) return tensor_ops::rope_table(frequencies, positions);
  const at::TensorOptions on = positions.options().dtype(at::kFloat);
  RopeTable table{at::empty({tokens, pairs}, on), at::empty({tokens, pairs}, on)};
  if (has_kernel) {
    cuda::rope_table_out(table.cos, table.sin, positions.contiguous(), frequencies.radians,
                         frequencies.magnitude);
    return table;
  }
  const at::Tensor dense = positions.contiguous();
  const int64_t* position = dense.const_data_ptr<int64_t>();
  float* cos = table.cos.mutable_data_ptr<float>();
  float* sin = table.sin.mutable_data_ptr<float>();
  for (int64_t token = 0; token < tokens; ++token) {
    for (int64_t i = 0; i < pairs; ++i) {
      const float angle = static_cast<float>(position[token]) * frequencies.radians[i];
      cos[token * pairs + i] = std::cos(angle) * frequencies.magnitude;
      sin[token * pairs + i] = std::sin(angle) * frequencies.magnitude;
    }
  }
  return table;
}

at::Tensor sequence_positions(const std::vector<int64_t>& lengths) {
  int64_t tokens = 0;
  for (const int64_t length : lengths) {
    if (length < 0) {
      throw Error("sequence length is negative", {.where = "lengths",
                                                  .expected = "0 or more",
                                                  .found = std::to_string(length),
                                                  .hint = {}});
    }
    tokens += length;
  }
  at::Tensor positions = at::empty({tokens}, at::kLong);
  int64_t* position = positions.mutable_data_ptr<int64_t>();
  for (const int64_t length : lengths) {
    for (int64_t i = 0; i < length; ++i) *position++ = i;
  }
  return positions;
}

void apply_rope_(const at::Tensor& x, const RopeTable& table, bool interleaved) {
  require_shape(x, {-1, -1, -1}, "rope input");
  require_shape(table.cos, {x.size(0), -1}, "rope cos");
  require_shape(table.sin, table.cos.sizes(), "rope sin");
  require_dense_rows(x, "rope input");
  const int64_t pairs = table.cos.size(1);
  if (2 * pairs > x.size(2)) {
    throw Error("rope rotates more dimensions than a head has",
                {.where = "rope input",
                 .expected = "at least " + std::to_string(2 * pairs) + " dimensions",
                 .found = std::to_string(x.size(2)),
                 .hint = {}});
  }
  if (x.numel() == 0) return;
  if (!x.is_cpu()) return tensor_ops::apply_rope_(x, table.cos, table.sin, interleaved);
  const at::Tensor cos = table.cos.contiguous(), sin = table.sin.contiguous();
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kBFloat16, at::kHalf, x.scalar_type(), "apply_rope", [&] {
    for (int64_t token = 0; token < x.size(0); ++token) {
      for (int64_t head = 0; head < x.size(1); ++head) {
        rotate_head<scalar_t>(
            x.mutable_data_ptr<scalar_t>() + token * x.stride(0) + head * x.stride(1),
            cos.const_data_ptr<float>() + token * pairs,
            sin.const_data_ptr<float>() + token * pairs, pairs, interleaved);
      }
    }
  });
}

}  // namespace farskip
