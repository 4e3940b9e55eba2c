// Gradients against central differences of the forward functions, in double precision where a
// function has it, else in fp32 with steps to match.
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/full.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include "differences.h"
#include "farskip/base/error.h"
#include "farskip/nn/attention_gradient.h"
#include "farskip/nn/experts.h"
#include "farskip/nn/experts_gradient.h"
#include "farskip/nn/loss.h"
#include "farskip/nn/mlp.h"
#include "farskip/nn/mlp_gradient.h"
#include "farskip/nn/norm.h"
#include "farskip/nn/norm_gradient.h"
#include "farskip/nn/permutation.h"
#include "farskip/nn/permutation_gradient.h"
#include "farskip/nn/router.h"
#include "farskip/nn/router_gradient.h"
#include "random_tensors.h"

namespace farskip::testing {
namespace {

double weighed(const at::Tensor& y, const at::Tensor& by) {
  return (y.to(at::kDouble) * by.to(at::kDouble)).sum().item<double>();
}

TEST(Gradient, NormByInputAndWeight) {
  const at::Tensor x = random({5, 7}, 1).to(at::kDouble), weight = random({7}, 2).to(at::kDouble),
                   d = random({5, 7}, 3).to(at::kDouble);
  const auto f = [&] { return weighed(rms_norm(x, weight, 1e-3), d); };
  const at::Tensor by_x = at::empty_like(x);
  rms_norm_gradient_out(by_x, d, x, weight, 1e-3);
  EXPECT_LT(relative_error(by_x, differences(x, 1e-5, f)), 1e-6);
  const at::Tensor gradient = at::full({7}, 1.0, at::kDouble);
  rms_norm_weight_gradient({gradient, true}, d, x, 1e-3);
  EXPECT_LT(relative_error(gradient - 1, differences(weight, 1e-5, f)), 1e-6);
}

TEST(Gradient, SwiGlu) {
  const at::Tensor x = random({3, 4}, 1).to(at::kDouble), up = random({10, 4}, 2).to(at::kDouble),
                   down = random({4, 5}, 3).to(at::kDouble), d = random({3, 4}, 4).to(at::kDouble);
  const auto f = [&] { return weighed(swiglu(x, up, down), d); };
  const at::Tensor out = at::empty({3, 4}, at::kDouble), products = at::empty({3, 10}, at::kDouble);
  swiglu_saving_out(out, products, x, up, down);
  const MlpGradient made = swiglu_gradient(d, products, up, down);
  EXPECT_LT(relative_error(made.rows, differences(x, 1e-5, f)), 1e-6);
  EXPECT_LT(relative_error(made.deltas.t().mm(x), differences(up, 1e-5, f)), 1e-6);
  EXPECT_LT(relative_error(d.t().mm(made.activated), differences(down, 1e-5, f)), 1e-6);
}

// Rows of two source ranks, an expert without rows, and one with rows of one rank only.
TEST(Gradient, Experts) {
  const at::Tensor counts = at::tensor({2, 0, 1, 1, 0, 0}, at::kLong).view({2, 3});
  const at::Tensor rows = random({4, 4}, 1).to(at::kDouble);
  const at::Tensor up = random({3, 6, 4}, 2).to(at::kDouble),
                   down = random({3, 4, 3}, 3).to(at::kDouble),
                   d = random({4, 4}, 4).to(at::kDouble);
  const auto f = [&] { return weighed(experts(rows, counts, up, down), d); };
  const ExpertsOutput forward = experts_saving(rows, counts, up, down);
  EXPECT_LT(relative_error(forward.rows, experts(rows, counts, up, down)), 1e-12);
  const MlpGradient made = experts_gradient(d, forward.products, counts, up, down);
  EXPECT_LT(relative_error(made.rows, differences(rows, 1e-5, f)), 1e-6);
  const at::Tensor d_up = at::full_like(up, 7.0), d_down = at::full_like(down, 7.0);
  experts_weight_gradient({d_up}, {d_down}, rows, made.deltas, made.activated, d, counts);
  EXPECT_LT(relative_error(d_up, differences(up, 1e-5, f)), 1e-6);
  EXPECT_LT(relative_error(d_down, differences(down, 1e-5, f)), 1e-6);
  EXPECT_EQ(d_up[1].abs().max().item<double>(), 0.0);
  EXPECT_THROW(experts_gradient(d, forward.products, counts + 1, up, down), Error);
}

// Two sequences and an empty one; heads that share k and v, and values narrower than keys.
TEST(Gradient, AttentionCore) {
  const std::vector<int64_t> lengths = {3, 0, 2};
  for (int64_t kv_heads : {1, 2}) {
    const AttentionInputs in{random({5, 2, 4}, 1), random({5, kv_heads, 4}, 2),
                             random({5, kv_heads, 3}, 3)};
    const at::Tensor d = random({5, 6}, 4);
    const auto f = [&] { return weighed(attention_core(in, lengths, 0.7), d); };
    const AttentionSaved saved = attention_core_saving(in, lengths, 0.7);
    EXPECT_LT(relative_error(saved.out, attention_core(in, lengths, 0.7)), 1e-6);
    const AttentionInputs made = attention_core_gradient(d, in, saved, lengths, 0.7);
    EXPECT_LT(relative_error(made.q, differences(in.q, 1e-2, f)), 2e-3);
    EXPECT_LT(relative_error(made.k, differences(in.k, 1e-2, f)), 2e-3);
    EXPECT_LT(relative_error(made.v, differences(in.v, 1e-2, f)), 2e-3);
  }
}

// What runs where no fused kernel fits.
TEST(Gradient, AttentionInOperatorsAlone) {
  const at::Tensor q = random({2, 2, 5, 4}, 1), k = random({2, 2, 5, 4}, 2),
                   v = random({2, 2, 5, 4}, 3), d = random({2, 2, 5, 4}, 4);
  const auto f = [&] { return weighed(std::get<0>(tensor_ops::attend(q, k, v, 0.6)), d); };
  const auto [out, sums] = tensor_ops::attend(q, k, v, 0.6);
  const auto flat = [](const at::Tensor& x) { return x.transpose(1, 2).flatten(0, 1); };
  const AttentionSaved fused = attention_core_saving({flat(q), flat(k), flat(v)}, {5, 5}, 0.6);
  EXPECT_LT(relative_error(flat(out).flatten(1), fused.out), 1e-5);
  EXPECT_LT(relative_error(flat(sums), fused.log_sum_exp), 1e-5);
  const auto [d_q, d_k, d_v] = tensor_ops::attend_backward(d, q, k, v, out, sums, 0.6);
  EXPECT_LT(relative_error(d_q, differences(q, 1e-2, f)), 2e-3);
  EXPECT_LT(relative_error(d_k, differences(k, 1e-2, f)), 2e-3);
  EXPECT_LT(relative_error(d_v, differences(v, 1e-2, f)), 2e-3);
}

TEST(Gradient, RoutingWeightsOfEveryRule) {
  for (const auto scoring : {RouterConfig::Scoring::softmax, RouterConfig::Scoring::sigmoid,
                             RouterConfig::Scoring::softmax_of_chosen}) {
    for (const bool normalize : {false, true}) {
      RouterConfig config;
      config.experts = 6;
      config.top_k = 2;
      config.scoring = scoring;
      config.normalize = normalize;
      config.normalize_epsilon = 1e-3;
      config.scale = 2.5;
      const at::Tensor logits = random({4, 6}, 1) * 2, d = random({4, 2}, 2);
      const Routing routing = choose_experts(config, logits, {});
      const auto f = [&] { return weighed(choose_experts(config, logits, {}).weights, d); };
      const at::Tensor made =
          routing_weights_to_logits_gradient(config, d, routing.experts, logits);
      EXPECT_LT((made - differences(logits, 1e-3, f)).abs().max().item<double>(), 2e-3)
          << static_cast<int>(scoring) << normalize;
    }
  }
}

TEST(Gradient, PermutationsGoBack) {
  const at::Tensor inverse = at::tensor({3, 0, -1, 2, 1, 4}, at::kLong);
  const at::Tensor rows = random({5, 3}, 1), weights = random({3, 2}, 2), d = random({3, 3}, 3);
  const auto f = [&] { return weighed(unpermute(rows, inverse, weights), d); };
  const at::Tensor d_rows = at::zeros({5, 3});
  unpermute_gradient_out(d_rows, d, inverse, weights);
  EXPECT_LT(relative_error(d_rows, differences(rows, 1e-2, f)), 1e-3);
  EXPECT_LT(
      relative_error(routing_weights_gradient(d, rows, inverse, 2), differences(weights, 1e-2, f)),
      1e-3);
  const at::Tensor x = random({3, 3}, 4), sent = at::zeros({5, 3});
  const auto g = [&] {
    sent.zero_();
    permute_by_inverse_out(sent, x, inverse, 2);
    return weighed(sent, rows);
  };
  EXPECT_LT(relative_error(permute_gradient(rows, inverse, 2), differences(x, 1e-2, g)), 1e-3);
  EXPECT_THROW(unpermute_gradient_out(at::zeros({4, 3}), d, inverse, weights), Error);
}

TEST(Gradient, CrossEntropyCountsLabelsOnly) {
  const at::Tensor logits = random({4, 5}, 1) * 3;
  const at::Tensor labels = at::tensor({2, -100, 0, 4}, at::kLong), count = at::full({1}, 8.0f);
  const auto f = [&] { return cross_entropy(logits, labels, count).loss.item<double>(); };
  const CrossEntropy made = cross_entropy(logits, labels, count);
  const at::Tensor gradient = at::empty({4, 5});
  cross_entropy_gradient_out(gradient, logits, labels, count, made.log_sum_exp);
  EXPECT_LT(relative_error(gradient, differences(logits, 1e-2, f)), 2e-3);
  EXPECT_EQ(gradient[1].abs().max().item<float>(), 0.0f);
  EXPECT_THROW(cross_entropy(logits, at::tensor({2, 1, 0, 5}, at::kLong), count), Error);
  const CrossEntropy none = cross_entropy(logits.narrow(0, 0, 0), labels.narrow(0, 0, 0), count);
  EXPECT_EQ(none.loss.item<float>(), 0.0f);
}

TEST(Gradient, EmbeddingAddsRowsOfEqualIds) {
  const at::Tensor table = at::full({4, 2}, 9.0f), rows = at::ones({3, 2});
  embedding_gradient({table}, rows, at::tensor({1, 3, 1}, at::kLong));
  EXPECT_EQ(table.sum(1).to(at::kLong).equal(at::tensor({0, 4, 0, 2}, at::kLong)), true);
  embedding_gradient({table, true}, rows, at::tensor({0, 0, 0}, at::kLong));
  EXPECT_EQ(table[0][0].item<float>(), 3.0f);
}

}  // namespace
}  // namespace farskip::testing
