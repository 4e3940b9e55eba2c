#include "farskip/nn/attention.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/ones.h>
#include <gtest/gtest.h>

#include <cmath>

#include "farskip/base/error.h"
#include "farskip/nn/linear.h"
#include "farskip/nn/norm.h"
#include "random_tensors.h"

namespace farskip::testing {
namespace {

AttentionInputs random_inputs(int64_t tokens, int64_t heads, int64_t kv_heads, int64_t qk,
                              int64_t value, at::ScalarType dtype = at::kFloat) {
  return {random({tokens, heads, qk}, 1, dtype), random({tokens, kv_heads, qk}, 2, dtype),
          random({tokens, kv_heads, value}, 3, dtype)};
}

// One query, one head, one key at a time, in double.
at::Tensor slow_core(const AttentionInputs& inputs, const std::vector<int64_t>& lengths,
                     double scale) {
  const at::Tensor q = inputs.q.to(at::kDouble), k = inputs.k.to(at::kDouble),
                   v = inputs.v.to(at::kDouble);
  const int64_t heads = q.size(1), group = heads / k.size(1);
  at::Tensor out = at::empty({q.size(0), heads, v.size(2)}, at::kDouble);
  int64_t first = 0;
  for (const int64_t length : lengths) {
    for (int64_t t = first; t < first + length; ++t) {
      for (int64_t head = 0; head < heads; ++head) {
        at::Tensor sum = at::zeros({v.size(2)}, at::kDouble);
        double total = 0.0;
        for (int64_t s = first; s <= t; ++s) {
          const double score =
              std::exp(scale * (q[t][head] * k[s][head / group]).sum().item<double>());
          total += score;
          sum += score * v[s][head / group];
        }
        out[t][head].copy_(sum / total);
      }
    }
    first += length;
  }
  return out.flatten(1);
}

TEST(AttentionCore, MatchesDefinition) {
  const std::vector<int64_t> lengths = {5, 0, 1, 14};
  for (const AttentionInputs& inputs :
       {random_inputs(20, 4, 4, 8, 8), random_inputs(20, 6, 2, 16, 16),
        random_inputs(20, 3, 3, 12, 5), random_inputs(20, 2, 1, 6, 9)}) {
    EXPECT_LT(relative_error(attention_core(inputs, lengths, 0.3), slow_core(inputs, lengths, 0.3)),
              2e-6);
  }
  const AttentionInputs half = random_inputs(20, 4, 2, 16, 8, at::kBFloat16);
  EXPECT_LT(relative_error(attention_core(half, lengths, 0.3), slow_core(half, lengths, 0.3)),
            2e-2);
}

TEST(AttentionCore, SequencesAreIndependent) {
  for (const AttentionInputs& inputs :
       {random_inputs(300, 4, 4, 48, 32), random_inputs(300, 8, 2, 32, 32)}) {
    const auto part = [&](int64_t first, int64_t rows) {
      return AttentionInputs{inputs.q.narrow(0, first, rows), inputs.k.narrow(0, first, rows),
                             inputs.v.narrow(0, first, rows)};
    };
    const at::Tensor whole = attention_core(inputs, {3, 197, 100}, 0.2);
    EXPECT_TRUE(at::equal(at::cat({attention_core(part(0, 3), {3}, 0.2),
                                   attention_core(part(3, 297), {197, 100}, 0.2)}),
                          whole));
    EXPECT_TRUE(at::equal(attention_core(part(200, 100), {100}, 0.2), whole.narrow(0, 200, 100)));
  }
}

TEST(AttentionCore, LaterTokensDoNotReachBack) {
  AttentionInputs inputs = random_inputs(12, 2, 2, 8, 8);
  const at::Tensor before = attention_core(inputs, {12}, 0.3);
  inputs.k[11].mul_(3.0);
  inputs.v[11].mul_(3.0);
  const at::Tensor after = attention_core(inputs, {12}, 0.3);
  EXPECT_TRUE(at::equal(after.narrow(0, 0, 11), before.narrow(0, 0, 11)));
  EXPECT_FALSE(at::equal(after[11], before[11]));
}

TEST(AttentionCore, TakesNoTokensAndRefusesWhatDoesNotFit) {
  EXPECT_EQ(attention_core(random_inputs(0, 2, 2, 4, 4), {}, 1.0).size(0), 0);
  EXPECT_EQ(attention_core(random_inputs(0, 2, 2, 4, 4), {0, 0}, 1.0).size(0), 0);
  EXPECT_THROW(attention_core(random_inputs(5, 2, 2, 4, 4), {3}, 1.0), Error);
  EXPECT_THROW(attention_core(random_inputs(5, 2, 2, 4, 4), {8, -3}, 1.0), Error);
  EXPECT_THROW(attention_core(random_inputs(5, 3, 2, 4, 4), {5}, 1.0), Error);
  AttentionInputs inputs = random_inputs(5, 2, 2, 4, 4);
  inputs.k = inputs.k.narrow(2, 0, 3);
  EXPECT_THROW(attention_core(inputs, {5}, 1.0), Error);
}

ModelConfig latent_config(int q_lora) {
  ModelConfig config;
  config.hidden = 24;
  config.attention.kind = AttentionConfig::Kind::latent;
  config.attention.heads = 3;
  config.attention.q_lora_rank = q_lora;
  config.attention.kv_lora_rank = 10;
  config.attention.qk_nope_head_dim = 6;
  config.attention.qk_rope_head_dim = 4;
  config.attention.v_head_dim = 5;
  config.rope.dims = 4;
  config.rope.interleaved = true;
  return config;
}

AttentionWeights latent_weights(const ModelConfig& config) {
  AttentionWeights weights;
  const int64_t q_lora = config.attention.q_lora_rank;
  weights.q_kv_a = random({(q_lora > 0 ? q_lora : 30) + 14, 24}, 4);
  if (q_lora > 0) {
    weights.q_a_norm = random({q_lora}, 5);
    weights.q_b = random({30, q_lora}, 6);
  }
  weights.kv_a_norm = random({10}, 7);
  weights.kv_b = random({3 * 11, 10}, 8);
  return weights;
}

// The latent form written out with whole matrices and no sharing of buffers.
TEST(AttentionPrepare, LatentExpandsKeysAndValues) {
  for (const int q_lora : {0, 7}) {
    const ModelConfig config = latent_config(q_lora);
    const AttentionWeights weights = latent_weights(config);
    const at::Tensor x = random({9, 24}, 1);
    const RopeTable rope = rope_cos_sin(config.rope, at::arange(9));
    const AttentionInputs inputs = attention_prepare(config, weights, x, rope);

    const at::Tensor compressed = x.mm(weights.q_kv_a.t());
    const int64_t q_width = q_lora > 0 ? q_lora : 30;
    at::Tensor q = compressed.narrow(1, 0, q_width).contiguous();
    if (q_lora > 0) q = rms_norm(q, weights.q_a_norm, 1e-6).mm(weights.q_b.t());
    q = q.view({9, 3, 10}).clone();
    apply_rope_(q.narrow(2, 6, 4), rope, true);
    EXPECT_LT(relative_error(inputs.q, q), 1e-6);

    const at::Tensor latent = rms_norm(compressed.narrow(1, q_width, 10), weights.kv_a_norm, 1e-6);
    const at::Tensor kv = latent.mm(weights.kv_b.t()).view({9, 3, 11});
    const at::Tensor k_rope = compressed.narrow(1, q_width + 10, 4).contiguous().view({9, 1, 4});
    apply_rope_(k_rope, rope, true);
    EXPECT_LT(relative_error(inputs.k, at::cat({kv.narrow(2, 0, 6), k_rope.expand({9, 3, 4})}, 2)),
              1e-6);
    EXPECT_LT(relative_error(inputs.v, kv.narrow(2, 6, 5)), 1e-6);
  }
}

ModelConfig grouped_config(AttentionConfig::QkNorm norm, double clip) {
  ModelConfig config;
  config.hidden = 24;
  config.norm_eps = 1e-3;
  config.attention.heads = 4;
  config.attention.kv_heads = 2;
  config.attention.head_dim = 6;
  config.attention.qk_norm = norm;
  config.attention.clip_qkv = clip;
  config.rope.dims = 6;
  return config;
}

TEST(AttentionPrepare, GroupedNormsThenClipsThenRotates) {
  using QkNorm = AttentionConfig::QkNorm;
  for (const QkNorm norm : {QkNorm::none, QkNorm::per_head, QkNorm::all_heads}) {
    for (const double clip : {0.0, 0.5}) {
      const ModelConfig config = grouped_config(norm, clip);
      const at::Tensor x = random({7, 24}, 1);
      AttentionWeights weights;
      weights.qkv = random({48, 24}, 2);
      weights.q_norm = random({norm == QkNorm::per_head ? 6 : 24}, 3);
      weights.k_norm = random({norm == QkNorm::per_head ? 6 : 12}, 4);
      const RopeTable rope = rope_cos_sin(config.rope, at::arange(7));
      const AttentionInputs inputs = attention_prepare(config, weights, x, rope);

      const auto expected = [&](int64_t first, int64_t heads, const at::Tensor& weight,
                                bool rotate) {
        at::Tensor y = x.mm(weights.qkv.t()).narrow(1, first, heads * 6).contiguous();
        if (weight.defined() && norm == QkNorm::all_heads) y = rms_norm(y, weight, 1e-3);
        y = y.view({7, heads, 6});
        if (weight.defined() && norm == QkNorm::per_head) y = rms_norm(y, weight, 1e-3);
        if (clip > 0.0) y = y.clamp(-clip, clip);
        if (rotate) apply_rope_(y, rope, false);
        return y;
      };
      EXPECT_LT(relative_error(inputs.q, expected(0, 4, weights.q_norm, true)), 1e-6);
      EXPECT_LT(relative_error(inputs.k, expected(24, 2, weights.k_norm, true)), 1e-6);
      EXPECT_LT(relative_error(inputs.v, expected(36, 2, {}, false)), 1e-6);
    }
  }
}

// As kv_b is: k's rows of a head before v's, k's head longer than what the product fills.
TEST(LinearByHead, WritesEachHeadWhereItBelongs) {
  const at::Tensor x = random({9, 5}, 1), weight = random({3, 11, 5}, 2);
  const at::Tensor products = linear(x, weight.reshape({33, 5})).view({9, 3, 11});
  const at::Tensor k = random({9, 3, 10}, 3), before = k.clone();
  linear_by_head_out(k.narrow(2, 0, 7), x, weight.narrow(1, 0, 7));
  EXPECT_LT(relative_error(k.narrow(2, 0, 7), products.narrow(2, 0, 7)), 1e-6);
  EXPECT_TRUE(at::equal(k.narrow(2, 7, 3), before.narrow(2, 7, 3)));
  EXPECT_THROW(linear_by_head_out(k, x, weight.narrow(1, 0, 7)), Error);
  EXPECT_THROW(linear_by_head_out(k, x.to(at::kDouble), weight.narrow(1, 0, 10)), Error);
}

TEST(AttentionPrepare, PiecesChangeNoBitAndInputsStayUntouched) {
  const ModelConfig config = latent_config(7);
  const AttentionWeights weights = latent_weights(config);
  const at::Tensor x = random({19, 24}, 1), before = x.clone();
  const RopeTable rope = rope_cos_sin(config.rope, at::arange(19));
  const AttentionInputs whole = attention_prepare(config, weights, x, rope);
  EXPECT_TRUE(at::equal(x, before));
  for (const auto& [first, rows] : std::vector<std::pair<int64_t, int64_t>>{{0, 4}, {4, 15}}) {
    const RopeTable part{rope.cos.narrow(0, first, rows), rope.sin.narrow(0, first, rows)};
    const AttentionInputs piece =
        attention_prepare(config, weights, x.narrow(0, first, rows), part);
    EXPECT_TRUE(at::equal(piece.q, whole.q.narrow(0, first, rows)));
    EXPECT_TRUE(at::equal(piece.k, whole.k.narrow(0, first, rows)));
    EXPECT_TRUE(at::equal(piece.v, whole.v.narrow(0, first, rows)));
  }
}

TEST(AttentionPrepare, TakesNoTokensAndRefusesWhatDoesNotFit) {
  const ModelConfig config = latent_config(0);
  const AttentionWeights weights = latent_weights(config);
  const RopeTable none = rope_cos_sin(config.rope, at::arange(0));
  EXPECT_EQ(attention_prepare(config, weights, at::empty({0, 24}), none).k.sizes(),
            at::IntArrayRef({0, 3, 10}));
  EXPECT_THROW(attention_prepare(config, weights, at::ones({2, 24}), none), Error);
  EXPECT_THROW(attention_prepare(config, {}, at::empty({0, 24}), none), Error);
  EXPECT_THROW(attention_prepare(config, weights, at::empty({0, 23}), none), Error);
  ModelConfig sinks = config;
  sinks.attention.sinks = true;
  EXPECT_THROW(attention_prepare(sinks, weights, at::empty({0, 24}), none), UnsupportedError);
  ModelConfig window = config;
  window.attention.window = {0, 128};
  EXPECT_THROW(attention_prepare(window, weights, at::empty({0, 24}), none), UnsupportedError);
}

}  // namespace
}  // namespace farskip::testing
