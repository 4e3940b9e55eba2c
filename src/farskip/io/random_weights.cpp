#include <ATen/Context.h>
#include <ATen/Dispatch.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>

#include <array>
#include <cmath>
#include <functional>
#include <utility>

#include "farskip/base/error.h"
#include "farskip/base/hash.h"
#include "farskip/io/weights.h"

namespace farskip {
namespace {

// 4,096 values at the middle of as many equally likely slices of the normal distribution, scaled to
// variance 1: a lookup by 12 random bits is a draw, many times faster than Box-Muller.
constexpr size_t quantiles = 4096;
using NormalTable = std::array<double, quantiles>;

// The x at which the normal distribution reaches p, by bisection.
double normal_quantile(double p) {
  double low = -8.0, high = 8.0;
  for (int step = 0; step < 50; ++step) {
    const double middle = 0.5 * (low + high);
    (0.5 * std::erfc(-middle / std::sqrt(2.0)) < p ? low : high) = middle;
  }
  return 0.5 * (low + high);
}

NormalTable make_normal_table() {
  NormalTable table;
  double sum_of_squares = 0;
  for (size_t i = 0; i < quantiles / 2; ++i) {
    const double value = normal_quantile((static_cast<double>(i) + 0.5) / quantiles);
    table[i] = value;
    table[quantiles - 1 - i] = -value;
    sum_of_squares += 2 * value * value;
  }
  for (double& value : table) value /= std::sqrt(sum_of_squares / quantiles);
  return table;
}

// Element i is drawn from bits that depend on seed and i alone.
template <typename Scalar>
void fill(Scalar* values, int64_t count, double deviation, uint64_t seed,
          const NormalTable& normal) {
  std::array<Scalar, quantiles> table;
  for (size_t i = 0; i < quantiles; ++i) {
    table[i] = static_cast<Scalar>(static_cast<float>(normal[i] * deviation));
  }
  constexpr uint64_t golden = 0x9E3779B97F4A7C15ULL;
  constexpr int bits = 12, draws_per_word = 5;
  for (int64_t i = 0; i < count; seed += golden) {
    uint64_t word = splitmix64(seed);
    const int64_t end = std::min<int64_t>(count, i + draws_per_word);
    for (; i < end; ++i, word >>= bits) values[i] = table[word % quantiles];
  }
}

// The standard deviation of a weight that is neither of a norm nor a bias.
using Deviation = std::function<double(const WeightSpec&)>;

class Generator {
 public:
  Generator(Deviation deviation, uint64_t seed, at::Device device)
      : deviation_(std::move(deviation)),
        seed_(seed),
        device_(device),
        normal_(make_normal_table()) {}

  at::Tensor replicated(const WeightSpec& spec) const {
    if (spec.role == WeightRole::norm) return constant(spec, 1.0);
    if (spec.role == WeightRole::bias) return constant(spec, 0.0);
    at::Tensor weight = at::empty(spec.shape, options(spec));
    draw(weight, spec, spec.name);
    return weight;
  }

  at::Tensor experts(const WeightSpec& spec, const std::vector<int>& experts) const {
    at::Tensor weight = at::empty(spec.shape, options(spec));
    for (size_t i = 0; i < experts.size(); ++i) {
      draw(weight.select(0, static_cast<int64_t>(i)), spec,
           spec.name + "." + std::to_string(experts[i]));
    }
    return weight;
  }

 private:
  at::TensorOptions options(const WeightSpec& spec) const {
    return at::TensorOptions().dtype(spec.dtype).device(device_);
  }

  at::Tensor constant(const WeightSpec& spec, double value) const {
    return at::full(spec.shape, value, options(spec));
  }

  void draw(const at::Tensor& weight, const WeightSpec& spec, const std::string& name) const {
    const double deviation = deviation_(spec);
    const uint64_t seed = seed_for(seed_, name);
    if (!weight.is_cpu()) {
      at::Generator generator = at::globalContext().defaultGenerator(device_).clone();
      generator.set_current_seed(seed);
      at::Tensor(weight).normal_(0.0, deviation, generator);
      return;
    }
    AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, weight.scalar_type(), "draw", [&] {
      fill(weight.data_ptr<scalar_t>(), weight.numel(), deviation, seed, normal_);
    });
  }

  Deviation deviation_;
  uint64_t seed_;
  at::Device device_;
  NormalTable normal_;
};

std::vector<Weights> draw_weights(const Generator& generator, const ModelConfig& config,
                                  const Placement& placement, std::span<const int> ranks,
                                  at::ScalarType dtype) {
  std::vector<Weights> weights(ranks.size());
  for (size_t r = 0; r < ranks.size(); ++r) {
    for (const WeightSpec& spec : weight_specs(config, placement, ranks[r], dtype)) {
      at::Tensor& weight = weights[r][spec.name];
      if (spec.of_experts()) {
        weight = generator.experts(spec, placement.experts_of(ranks[r]));
      } else {
        weight = r == 0 ? generator.replicated(spec) : weights.front().at(spec.name);
      }
    }
    if (config.tied_embeddings) weights[r]["head"] = weights[r].at("embedding");
  }
  return weights;
}

double deviation_that_keeps_size(const WeightSpec& spec) {
  if (spec.role == WeightRole::embedding) return 1.0;
  return 1.0 / std::sqrt(static_cast<double>(spec.shape.back()));
}

// What a layer adds to the residual stream comes out of these.
bool is_output_projection(const WeightSpec& spec) {
  return spec.name.ends_with(".down") || spec.name.ends_with("attention.output");
}

}  // namespace

std::vector<Weights> random_weights(const ModelConfig& config, const Placement& placement,
                                    std::span<const int> ranks, at::ScalarType dtype, uint64_t seed,
                                    at::Device device) {
  const Generator generator(deviation_that_keeps_size, seed, device);
  return draw_weights(generator, config, placement, ranks, dtype);
}

Weights random_weights(const ModelConfig& config, const Placement& placement, int rank,
                       at::ScalarType dtype, uint64_t seed) {
  return std::move(random_weights(config, placement, std::span(&rank, 1), dtype, seed).front());
}

std::vector<Weights> initial_weights(const ModelConfig& config, const Placement& placement,
                                     std::span<const int> ranks, at::ScalarType dtype,
                                     uint64_t seed, double deviation, at::Device device) {
  if (!(deviation > 0 && std::isfinite(deviation))) {
    throw ConfigError("wrong value", {.where = "initial weights: standard deviation",
                                      .expected = "a number above 0",
                                      .found = std::to_string(deviation)});
  }
  const double of_outputs = deviation / std::sqrt(2.0 * config.layer_count());
  const Generator generator(
      [=](const WeightSpec& spec) { return is_output_projection(spec) ? of_outputs : deviation; },
      seed, device);
  return draw_weights(generator, config, placement, ranks, dtype);
}

}  // namespace farskip
