#include "farskip/runtime/bits_check.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/equal.h>

#include <algorithm>

namespace farskip {

void BitsCheck::add(const std::string& family, const std::string& name,
                    const ForwardResult& result) {
  const Footprint found = result.gradient_bits.defined()
                              ? Footprint{result.gradient_bits, result.gradient_norms}
                              : Footprint{result.logits(), {}};
  const auto [entry, first] = expected_.try_emplace(family, found);
  if (first) return;
  const Footprint& expected = entry->second;
  if (!at::equal(expected.bits, found.bits)) differences_.push_back(compared_.size());
  if (expected.norms.defined()) {
    const at::Tensor change = (found.norms - expected.norms).abs();
    const at::Tensor relative = change / expected.norms.clamp_min(1e-30);
    gradient_noise_ = std::max(gradient_noise_, relative.max().item<double>());
  }
  compared_.push_back(name);
}

BitsVerdict BitsCheck::conclude(Session& session) const {
  const double none = static_cast<double>(compared_.size());
  const double own = differences_.empty() ? none : static_cast<double>(differences_[0]);
  double first = none;
  BitsVerdict verdict{.compared = static_cast<int>(compared_.size())};
  for (const auto& rank : session.all_gather(
           std::vector(session.groups().size(), std::vector{own, gradient_noise_}))) {
    first = std::min(first, rank.at(0));
    verdict.gradient_noise = std::max(verdict.gradient_noise, rank.at(1));
  }
  verdict.equal = first == none;
  if (!verdict.equal) verdict.first_difference = compared_[static_cast<size_t>(first)];
  return verdict;
}

}  // namespace farskip
