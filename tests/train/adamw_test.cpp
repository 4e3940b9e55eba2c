#include "farskip/train/adamw.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cfloat>
#include <cmath>

#include "farskip/base/error.h"
#include "farskip/base/random.h"

namespace farskip {
namespace {

constexpr int64_t odd_size = 1037;  // no multiple of any vector

at::Tensor normal(int64_t count, uint64_t seed, double deviation,
                  at::ScalarType dtype = at::kFloat) {
  Random random(seed);
  const at::Tensor tensor = at::empty({count}, at::kFloat);
  for (int64_t i = 0; i < count; ++i) {
    tensor.mutable_data_ptr<float>()[i] = static_cast<float>(deviation * random.normal());
  }
  return tensor.to(dtype);
}

struct State {
  at::Tensor master, m, v, parameter;

  explicit State(int64_t count, at::ScalarType parameter_dtype = at::kBFloat16)
      : master(normal(count, 1, 0.02)),
        m(at::zeros({count}, at::kFloat)),
        v(at::zeros({count}, at::kFloat)),
        parameter(at::zeros({count}, parameter_dtype)) {}

  State part(int64_t begin, int64_t count) const {
    State result(0);
    result.master = master.narrow(0, begin, count);
    result.m = m.narrow(0, begin, count);
    result.v = v.narrow(0, begin, count);
    result.parameter = parameter.narrow(0, begin, count);
    return result;
  }

  void update(const at::Tensor& gradient, const AdamwStep& step) const {
    adamw_step(master, m, v, gradient, parameter, step);
  }
};

bool same_bits(const State& a, const State& b) {
  return at::equal(a.master, b.master) && at::equal(a.m, b.m) && at::equal(a.v, b.v) &&
         at::equal(a.parameter, b.parameter);
}

AdamwStep step_number(int64_t step) {
  return {.learning_rate = 1e-2 / static_cast<double>(step),
          .beta1 = 0.8,
          .beta2 = 0.95,
          .epsilon = 1e-6,
          .weight_decay = 0.3,
          .gradient_scale = 0.5,
          .step = step};
}

// The formula of the paper, in double precision, for one element.
struct DoubleAdamw {
  double master, m = 0, v = 0;

  void update(double gradient, const AdamwStep& s) {
    const double g = s.gradient_scale * gradient;
    m = s.beta1 * m + (1 - s.beta1) * g;
    v = s.beta2 * v + (1 - s.beta2) * g * g;
    const double m_hat = m / (1 - std::pow(s.beta1, s.step));
    const double v_hat = v / (1 - std::pow(s.beta2, s.step));
    master -= s.learning_rate * (m_hat / (std::sqrt(v_hat) + s.epsilon) + s.weight_decay * master);
  }
};

using Update = void (*)(const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&,
                        const at::Tensor&, const AdamwStep&);

class AdamwFormula : public testing::TestWithParam<std::tuple<Update, at::ScalarType>> {};

TEST_P(AdamwFormula, FollowsDoublePrecision) {
  const auto [update, dtype] = GetParam();
  const State state(odd_size);
  std::vector<DoubleAdamw> exact;
  for (int64_t i = 0; i < odd_size; ++i) exact.push_back({state.master[i].item<double>()});
  for (int64_t step = 1; step <= 20; ++step) {
    const at::Tensor gradient = normal(odd_size, 100 + step, 1e-3, dtype);
    update(state.master, state.m, state.v, gradient, state.parameter, step_number(step));
    const at::Tensor values = gradient.to(at::kDouble);
    for (int64_t i = 0; i < odd_size; ++i) {
      exact[i].update(values.const_data_ptr<double>()[i], step_number(step));
    }
  }
  for (int64_t i = 0; i < odd_size; ++i) {
    ASSERT_NEAR(state.master[i].item<double>(), exact[i].master, 2e-7);
    ASSERT_NEAR(state.m[i].item<double>(), exact[i].m, 1e-9);
    ASSERT_NEAR(state.v[i].item<double>() / exact[i].v, 1, 1e-5);
  }
  EXPECT_TRUE(at::equal(state.parameter, state.master.to(at::kBFloat16)));
}

INSTANTIATE_TEST_SUITE_P(Forms, AdamwFormula,
                         testing::Combine(testing::Values(&adamw_step, &tensor_ops::adamw_step),
                                          testing::Values(at::kFloat, at::kBFloat16)));

// One weight, one step, by hand: g = 0.5, m = 0.05, v = 0.0125; corrected both are g and g^2, so
// the update is the learning rate itself.
TEST(Adamw, FirstStepMovesByTheLearningRate) {
  const State state(1, at::kFloat);
  state.master.fill_(1.0);
  state.update(at::full({1}, 0.5, at::kFloat), {.learning_rate = 0.125, .weight_decay = 0.5});
  EXPECT_NEAR(state.m.item<float>(), 0.05, 1e-8);
  EXPECT_NEAR(state.v.item<float>(), 0.0125, 1e-8);
  EXPECT_NEAR(state.master.item<float>(), 1.0 - 0.125 * 0.5 - 0.125, 1e-6);
  EXPECT_EQ(state.parameter.item<float>(), state.master.item<float>());
}

TEST(Adamw, SameBitsHoweverAParameterIsCut) {
  const State whole(odd_size), cut(odd_size);
  Random random(7);
  for (int64_t step = 1; step <= 5; ++step) {
    const at::Tensor gradient = normal(odd_size, step, 1e-2);
    whole.update(gradient, step_number(step));
    for (int64_t begin = 0; begin < odd_size;) {
      const auto count = std::min<int64_t>(odd_size - begin, random.below(40));  // 0 as well
      cut.part(begin, count).update(gradient.narrow(0, begin, count), step_number(step));
      begin += count;
    }
    ASSERT_TRUE(same_bits(whole, cut)) << step;
  }
}

TEST(Adamw, SameBitsOnAnyNumberOfThreads) {
  constexpr int64_t large = 300'000;
  const int threads = at::get_num_threads();
  const State one(large), many(large);
  const at::Tensor gradient = normal(large, 3, 1e-2);
  at::set_num_threads(1);
  one.update(gradient, step_number(1));
  at::set_num_threads(3);
  many.update(gradient, step_number(1));
  at::set_num_threads(threads);
  EXPECT_TRUE(same_bits(one, many));
}

TEST(Adamw, ParameterMayBeLeftOutOrOfFullWidth) {
  const State rounded(odd_size), full(odd_size, at::kFloat), none(odd_size);
  const at::Tensor gradient = normal(odd_size, 3, 1e-2);
  rounded.update(gradient, step_number(1));
  full.update(gradient, step_number(1));
  adamw_step(none.master, none.m, none.v, gradient, {}, step_number(1));
  EXPECT_TRUE(at::equal(full.master, rounded.master));
  EXPECT_TRUE(at::equal(none.master, rounded.master));
  EXPECT_TRUE(at::equal(full.parameter, full.master));
}

TEST(Adamw, EmptyShardsAreFine) {
  const State state(0);
  state.update(at::zeros({0}, at::kFloat), step_number(1));
  EXPECT_EQ(state.master.numel(), 0);
}

TEST(Adamw, WithoutGradientOnlyDecayIsLeft) {
  const State state(odd_size);
  const at::Tensor before = state.master.clone();
  state.update(at::zeros({odd_size}, at::kFloat), {.learning_rate = 0.5, .weight_decay = 0.25});
  EXPECT_TRUE(at::equal(state.master, before * 0.875f));
  EXPECT_EQ(state.m.abs().max().item<float>(), 0.0f);
}

TEST(Adamw, MomentsNeverBecomeSubnormal) {
  const State state(odd_size);
  state.m.fill_(FLT_MIN);
  state.v.fill_(FLT_MIN);
  state.update(at::zeros({odd_size}, at::kFloat), step_number(1));
  EXPECT_EQ(state.m.abs().max().item<float>(), 0.0f);
  EXPECT_EQ(state.v.abs().max().item<float>(), 0.0f);
}

TEST(Adamw, NonFiniteGradientsShow) {
  const State state(odd_size);
  const at::Tensor gradient = normal(odd_size, 3, 1e-2);
  gradient[5].fill_(NAN);
  gradient[1036].fill_(INFINITY);
  state.update(gradient, step_number(1));
  EXPECT_TRUE(std::isnan(state.master[5].item<float>()));
  EXPECT_FALSE(std::isfinite(state.master[1036].item<float>()));
  EXPECT_EQ(state.master.isnan().sum().item<int64_t>(), 2);
}

TEST(Adamw, DecayFollowsTheRole) {
  AdamwConfig config{.weight_decay = 0.25};
  for (const WeightRole role : {WeightRole::matrix, WeightRole::expert_gate_up,
                                WeightRole::expert_down, WeightRole::embedding}) {
    EXPECT_EQ(weight_decay_of(role, config), 0.25);
  }
  EXPECT_EQ(weight_decay_of(WeightRole::norm, config), 0.0);
  EXPECT_EQ(weight_decay_of(WeightRole::bias, config), 0.0);
  config.decay_embeddings = false;
  EXPECT_EQ(weight_decay_of(WeightRole::embedding, config), 0.0);
  EXPECT_EQ(weight_decay_of(WeightRole::matrix, config), 0.25);
}

TEST(Adamw, RefusesTensorsThatDoNotFit) {
  const State state(4);
  const at::Tensor gradient = at::zeros({4}, at::kFloat);
  const auto refused = [&](const at::Tensor& m, const at::Tensor& gradient,
                           const at::Tensor& parameter) {
    EXPECT_THROW(adamw_step(state.master, m, state.v, gradient, parameter, step_number(1)), Error);
  };
  refused(at::zeros({5}, at::kFloat), gradient, {});
  refused(at::zeros({4}, at::kBFloat16), gradient, {});
  refused(state.m, at::zeros({4}, at::kHalf), {});
  refused(state.m, at::zeros({2, 2}, at::kFloat), {});
  refused(state.m, {}, {});
  refused(state.m, gradient, at::zeros({4}, at::kDouble));
  refused(state.m, at::zeros({8}, at::kFloat).slice(0, 0, 8, 2), {});
  EXPECT_THROW(state.update(gradient, {.step = 0}), ConfigError);
}

TEST(Adamw, RefusesNonsense) {
  EXPECT_NO_THROW(check(AdamwConfig{}));
  EXPECT_THROW(check(AdamwConfig{.beta1 = 1}), ConfigError);
  EXPECT_THROW(check(AdamwConfig{.beta2 = -0.1}), ConfigError);
  EXPECT_THROW(check(AdamwConfig{.beta2 = NAN}), ConfigError);
  EXPECT_THROW(check(AdamwConfig{.epsilon = 0}), ConfigError);
  EXPECT_THROW(check(AdamwConfig{.weight_decay = -1}), ConfigError);
  EXPECT_THROW(check(AdamwConfig{.weight_decay = INFINITY}), ConfigError);
}

}  // namespace
}  // namespace farskip
