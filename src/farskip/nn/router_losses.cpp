#include "farskip/nn/router_losses.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <array>

#include "farskip/nn/check.h"
#include "farskip/nn/sequences.h"

namespace farskip {
namespace {

class RouterLossSum {
 public:
  RouterLossSum(const RouterConfig& config, const RoutedTokens& tokens,
                const at::Tensor& token_count)
      : config_(config),
        tokens_(tokens),
        token_count_(token_count),
        d_logits_(at::zeros_like(tokens.logits)) {
    for (at::Tensor& loss : losses_) loss = at::zeros({}, tokens.logits.options());
  }

  void add_balance(const RouterLosses& coefficients, const std::vector<int64_t>& lengths) {
    if (coefficients.balance == 0 && coefficients.sequence_balance == 0) return;
    const bool sigmoid = config_.scoring == RouterConfig::Scoring::sigmoid;
    const at::Tensor scores =
        sigmoid ? at::sigmoid(tokens_.logits) : at::softmax(tokens_.logits, -1);
    const at::Tensor p = sigmoid ? scores / scores.sum(1, /*keepdim=*/true) : scores;
    const at::Tensor d_p = at::zeros_like(p);
    if (coefficients.balance != 0) add_batch_balance(coefficients.balance, p, d_p);
    if (coefficients.sequence_balance != 0) {
      add_sequence_balance(coefficients.sequence_balance, lengths, p, d_p);
    }
    const at::Tensor d = p * (d_p - (d_p * p).sum(1, /*keepdim=*/true));
    d_logits_ += sigmoid ? d * (1 - scores) : d;
  }

  void add_z(double coefficient) {
    if (coefficient == 0) return;
    const at::Tensor sums = at::logsumexp(tokens_.logits, {1}, /*keepdim=*/true);
    const at::Tensor rate = coefficient / token_count_;
    losses_[2] = (sums * sums * rate).sum();
    d_logits_ += at::softmax(tokens_.logits, -1) * (sums * rate * 2);
  }

  RouterLossGradient result() const { return {d_logits_, at::stack(losses_)}; }

 private:
  void add_batch_balance(double coefficient, const at::Tensor& p, at::Tensor d_p) {
    require_shape(tokens_.loads, {config_.experts}, "expert loads");
    require_dtype(tokens_.loads, at::kLong, "expert loads");
    const at::Tensor share =
        tokens_.loads.to(at::kFloat) / tokens_.loads.sum().clamp_min(1).to(at::kFloat);
    const at::Tensor rate = share * (coefficient * config_.experts) / token_count_;
    losses_[0] = (p * rate).sum();
    d_p += rate;
  }

  void add_sequence_balance(double coefficient, const std::vector<int64_t>& lengths,
                            const at::Tensor& p, const at::Tensor& d_p) {
    const at::Tensor chosen = at::zeros_like(p).scatter_(1, tokens_.experts, 1.0);
    for (const SequenceGroup& group : group_sequences(lengths, p.size(0), /*one_by_one=*/false)) {
      const double scale = coefficient * config_.experts /
                           (static_cast<double>(config_.top_k) * static_cast<double>(group.length));
      const at::Tensor rate = group.of(chosen).sum(1, /*keepdim=*/true) * scale / token_count_;
      losses_[1] += (group.of(p) * rate).sum();
      group.of(d_p).add_(rate);
    }
  }

  const RouterConfig& config_;
  const RoutedTokens& tokens_;
  const at::Tensor& token_count_;
  at::Tensor d_logits_;
  std::array<at::Tensor, router_loss_count> losses_;
};

}  // namespace

RouterLossGradient router_losses(const RouterConfig& config, const RouterLosses& coefficients,
                                 const RoutedTokens& tokens, const at::Tensor& token_count,
                                 const std::vector<int64_t>& lengths) {
  require_shape(tokens.logits, {-1, config.experts}, "router logits");
  require_dtype(tokens.logits, at::kFloat, "router logits");
  require_shape(tokens.experts, {tokens.logits.size(0), config.top_k}, "expert ids");
  require_shape(token_count, {1}, "token count");
  require_dtype(token_count, at::kFloat, "token count");
  RouterLossSum sum(config, tokens, token_count);
  sum.add_balance(coefficients, lengths);
  sum.add_z(coefficients.z);
  return sum.result();
}

}  // namespace farskip
