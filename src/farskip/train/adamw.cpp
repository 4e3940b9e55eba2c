#include "farskip/train/adamw.h"

#include <ATen/Parallel.h>

#include <cfloat>
#include <cmath>
#include <string>

#include "farskip/base/error.h"
#include "farskip/nn/check.h"

namespace farskip {
namespace {

constexpr int64_t elements_a_task = int64_t{1} << 16;

struct Coefficients {
  explicit Coefficients(const AdamwStep& step)
      : gradient_scale(static_cast<float>(step.gradient_scale)),
        new_share1(static_cast<float>(1 - step.beta1)),
        new_share2(static_cast<float>(1 - step.beta2)),
        root_scale(static_cast<float>(
            1 / std::sqrt(1 - std::pow(step.beta2, static_cast<double>(step.step))))),
        epsilon(static_cast<float>(step.epsilon)),
        kept(static_cast<float>(1 - step.learning_rate * step.weight_decay)),
        rate(static_cast<float>(step.learning_rate /
                                (1 - std::pow(step.beta1, static_cast<double>(step.step))))) {}

  float gradient_scale, new_share1, new_share2, root_scale, epsilon, kept, rate;
};

// Moments of what gets no gradient any more shrink for ever, and arithmetic on numbers below the
// normal ones is many times slower.
float without_subnormal(float value) { return std::abs(value) < FLT_MIN ? 0.0f : value; }

// Parameter: void where there is none.
template <typename Gradient, typename Parameter>
void update(float* __restrict master, float* __restrict m, float* __restrict v,
            const Gradient* __restrict gradient, Parameter* __restrict parameter, int64_t count,
            const Coefficients c) {
  for (int64_t i = 0; i < count; ++i) {
    const float g = static_cast<float>(gradient[i]) * c.gradient_scale;
    m[i] = without_subnormal(m[i] + c.new_share1 * (g - m[i]));
    v[i] = without_subnormal(v[i] + c.new_share2 * (g * g - v[i]));
    const float denominator = std::sqrt(v[i]) * c.root_scale + c.epsilon;
    master[i] = c.kept * master[i] - c.rate * (m[i] / denominator);
    if constexpr (!std::is_void_v<Parameter>) parameter[i] = static_cast<Parameter>(master[i]);
  }
}

template <typename Gradient, typename Parameter>
void update_all(const at::Tensor& master, const at::Tensor& m, const at::Tensor& v,
                const at::Tensor& gradient, Parameter* parameter, const AdamwStep& step) {
  const Coefficients coefficients(step);
  auto* const master_data = master.mutable_data_ptr<float>();
  auto* const m_data = m.mutable_data_ptr<float>();
  auto* const v_data = v.mutable_data_ptr<float>();
  const auto* const gradient_data = gradient.const_data_ptr<Gradient>();
  at::parallel_for(0, master.numel(), elements_a_task, [&](int64_t begin, int64_t end) {
    Parameter* part = parameter;
    if constexpr (!std::is_void_v<Parameter>) part += begin;
    update(master_data + begin, m_data + begin, v_data + begin, gradient_data + begin, part,
           end - begin, coefficients);
  });
}

template <typename Gradient>
void update_for_parameter(const at::Tensor& master, const at::Tensor& m, const at::Tensor& v,
                          const at::Tensor& gradient, const at::Tensor& parameter,
                          const AdamwStep& step) {
  if (!parameter.defined()) {
    update_all<Gradient>(master, m, v, gradient, static_cast<void*>(nullptr), step);
  } else if (parameter.scalar_type() == at::kFloat) {
    update_all<Gradient>(master, m, v, gradient, parameter.mutable_data_ptr<float>(), step);
  } else {
    update_all<Gradient>(master, m, v, gradient, parameter.mutable_data_ptr<at::BFloat16>(), step);
  }
}

void require_flat(const at::Tensor& tensor, const at::Tensor& master, const char* name,
                  bool bf16_too) {
  require_shape(tensor, {master.numel()}, name);
  if (!bf16_too || tensor.scalar_type() != at::kBFloat16) require_dtype(tensor, at::kFloat, name);
  if (tensor.is_contiguous() && tensor.device() == master.device()) return;
  throw Error("tensor does not fit",
              {.where = name,
               .expected = "contiguous, on " + master.device().str(),
               .found = tensor.is_contiguous() ? "on " + tensor.device().str() : "strided"});
}

[[noreturn]] void fail(const std::string& field, const std::string& expected, double found) {
  throw ConfigError(
      "wrong value",
      {.where = "AdamW: " + field, .expected = expected, .found = std::to_string(found)});
}

}  // namespace

void check(const AdamwConfig& config) {
  const auto is_share = [](double beta) { return beta >= 0 && beta < 1; };
  if (!is_share(config.beta1)) fail("beta1", "0 to below 1", config.beta1);
  if (!is_share(config.beta2)) fail("beta2", "0 to below 1", config.beta2);
  if (!(config.epsilon > 0 && std::isfinite(config.epsilon))) {
    fail("epsilon", "a number above 0", config.epsilon);
  }
  if (!(config.weight_decay >= 0 && std::isfinite(config.weight_decay))) {
    fail("weight decay", "a number of at least 0", config.weight_decay);
  }
}

double weight_decay_of(WeightRole role, const AdamwConfig& config) {
  const bool decays = role == WeightRole::embedding
                          ? config.decay_embeddings
                          : role != WeightRole::norm && role != WeightRole::bias;
  return decays ? config.weight_decay : 0.0;
}

void adamw_step(const at::Tensor& master, const at::Tensor& m, const at::Tensor& v,
                const at::Tensor& gradient, const at::Tensor& parameter, const AdamwStep& step) {
  require_shape(master, {-1}, "AdamW master");
  require_flat(master, master, "AdamW master", false);
  require_flat(m, master, "AdamW m", false);
  require_flat(v, master, "AdamW v", false);
  require_flat(gradient, master, "AdamW gradient", true);
  if (parameter.defined()) require_flat(parameter, master, "AdamW parameter", true);
  if (step.step < 1) fail("step", "at least 1", static_cast<double>(step.step));
  if (master.numel() == 0) return;
  if (!master.is_cpu()) return tensor_ops::adamw_step(master, m, v, gradient, parameter, step);
  if (gradient.scalar_type() == at::kFloat) {
    update_for_parameter<float>(master, m, v, gradient, parameter, step);
  } else {
    update_for_parameter<at::BFloat16>(master, m, v, gradient, parameter, step);
  }
}

}  // namespace farskip
