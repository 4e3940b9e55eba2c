#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "fixture.h"

namespace farskip::testing {

struct BackwardOptions {
  std::optional<uint64_t> chaos_seed;
  int repeats = 1;
  bool adds = true;     // each repetition to the gradients of those before
  bool records = true;  // on a GPU: what repeats is launched as recorded
  std::function<void(Weights&)> change_weights = {};  // of each rank
};

// The loss of a batch and its gradients by every weight: those of experts of all ranks one after
// the other, others summed over ranks in rank order.
struct BackwardResult {
  at::Tensor loss;  // [1]
  // Where the step has them: [router_loss_count], and [routers, experts].
  at::Tensor router_losses, expert_loads;
  Weights gradients;
  std::vector<StepResult> ranks;
};

// Ranks compute on the device of the groups; without any, on plain local ones. Results come back to
// host memory.
BackwardResult run_backward(const Fixture& fixture, const PlannedStep& step,
                            const TokenBatch& tokens, int ranks,
                            const BackwardOptions& options = {}, at::ScalarType dtype = at::kFloat,
                            at::ScalarType gradients = at::kFloat,
                            std::vector<std::unique_ptr<Group>> groups = {});

using GroupFactory = std::function<std::vector<std::unique_ptr<Group>>(int ranks)>;

// Expects the oracle's loss and every gradient that it has, in every preset; with 4 ranks, two have
// no sequence.
void expect_golden_gradients(const Fixture& fixture, int ranks, const GroupFactory& groups);

// Loss and every gradient.
void expect_same_bits(const BackwardResult& expected, const BackwardResult& found);

// The gradients under the names that the fixture's checkpoint has for its weights.
std::map<std::string, at::Tensor> by_checkpoint_name(const Fixture& fixture,
                                                     const Weights& gradients);

}  // namespace farskip::testing
