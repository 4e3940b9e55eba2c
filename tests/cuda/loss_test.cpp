#include "farskip/cuda/loss.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>

#include "farskip/base/error.h"
#include "farskip/nn/loss.h"
#include "gpu_test.h"

namespace farskip::testing {
namespace {

using CudaLoss = GpuTest;

struct Case {
  at::Tensor logits, labels, label_count;
};

// Every third token has no label.
Case make_case(int64_t tokens, int64_t vocabulary, at::ScalarType dtype) {
  Case c{random({tokens, vocabulary}, 1, dtype) * 5,
         at::arange(tokens, at::kLong).mul(7).remainder(vocabulary), at::full({1}, 17.0)};
  c.labels.masked_fill_(at::arange(tokens, at::kLong).remainder(3).eq(1), no_label);
  return c;
}

struct Made {
  at::Tensor loss, log_sum_exp, gradient;
};

Made run(const Case& c) {
  const at::Tensor logits = on_gpu(c.logits), labels = on_gpu(c.labels),
                   count = on_gpu(c.label_count);
  Made made{poisoned({1}, at::kFloat), poisoned(c.labels.sizes(), at::kFloat),
            poisoned(c.logits.sizes(), c.logits.scalar_type())};
  cuda::cross_entropy_out(made.loss, made.log_sum_exp, logits, labels, count);
  cuda::cross_entropy_gradient_out(made.gradient, logits, labels, count, made.log_sum_exp);
  return made;
}

TEST_F(CudaLoss, MatchesTheCpu) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    for (const int64_t vocabulary : {1, 2, 7, 8, 100, 4097, 32768}) {
      for (const int64_t tokens : {0, 1, 37}) {
        SCOPED_TRACE(std::to_string(tokens) + " x " + std::to_string(vocabulary));
        const Case c = make_case(tokens, vocabulary, dtype);
        const CrossEntropy expected = cross_entropy(c.logits, c.labels, c.label_count);
        const at::Tensor gradient = at::empty_like(c.logits);
        cross_entropy_gradient_out(gradient, c.logits, c.labels, c.label_count,
                                   expected.log_sum_exp);
        const Made made = run(c);
        EXPECT_LT(elementwise_error(made.loss, expected.loss), 1e-5);
        EXPECT_LT(elementwise_error(made.log_sum_exp, expected.log_sum_exp), 1e-5);
        const double floor = dtype == at::kFloat ? 1e-2 : 1e-4;
        EXPECT_LT(elementwise_error(made.gradient, gradient, floor), tolerance(dtype) * 2);
      }
    }
  }
}

TEST_F(CudaLoss, TakesWideSpreadsAndRowsWithoutLabels) {
  Case c = make_case(4, 64, at::kFloat);
  c.logits[0].fill_(-1e30);
  c.logits[0][5] = 1e30;
  c.labels[0] = 5;
  c.labels[3] = no_label;
  const Made made = run(c);
  EXPECT_TRUE(made.gradient.isfinite().all().item<bool>());
  EXPECT_EQ(made.gradient[0].abs().max().item<float>(), 0.0f);
  EXPECT_EQ(made.gradient[3].abs().max().item<float>(), 0.0f);
}

TEST_F(CudaLoss, LabelsOutOfRangeMakeNaN) {
  Case c = make_case(4, 64, at::kFloat);
  c.labels[2] = 64;
  EXPECT_TRUE(run(c).loss.isnan().item<bool>());
}

TEST_F(CudaLoss, HasTheSameBitsInEveryRun) {
  const Case c = make_case(513, 5000, at::kBFloat16);
  const Made first = run(c), second = run(c);
  EXPECT_TRUE(at::equal(first.loss, second.loss));
  EXPECT_TRUE(at::equal(first.gradient, second.gradient));
}

TEST_F(CudaLoss, RefusesWhatDoesNotFit) {
  const Case c = make_case(4, 8, at::kFloat);
  const at::Tensor loss = on_gpu(at::ones({1})), sums = on_gpu(at::ones({4}));
  const at::Tensor logits = on_gpu(c.logits), labels = on_gpu(c.labels),
                   count = on_gpu(c.label_count);
  EXPECT_THROW(cuda::cross_entropy_out(loss, sums, logits, labels.narrow(0, 0, 3), count), Error);
  EXPECT_THROW(cuda::cross_entropy_out(loss, sums, logits.t(), labels, count), Error);
  EXPECT_THROW(cuda::cross_entropy_out(loss, sums, logits, labels, c.label_count), Error);
  EXPECT_THROW(
      cuda::cross_entropy_gradient_out(logits.to(at::kBFloat16), logits, labels, count, sums),
      Error);
}

}  // namespace
}  // namespace farskip::testing
