#pragma once

#include "farskip/cuda/launch.h"
#include "farskip/cuda/router_rule.h"

namespace farskip::cuda {

inline constexpr int max_experts = 512;
inline constexpr int max_groups = 32;

struct ChooseArguments {
  const void* logits;  // [tokens, experts]
  const float* bias;   // null: none
  int64_t* experts;
  float* weights;
  RouterRule rule;
};

struct PlanArguments {
  const int64_t* experts;  // [tokens, top_k]
  const int64_t* position_of_expert;
  int64_t *order, *inverse, *counts;
  int* block_counts;  // scratch: [plan_blocks(tokens), experts]
  int expert_count;
};

// Blocks that a launch over `tokens` takes; all must be on the device at once.
int plan_blocks(int64_t tokens);

void launch_choose(Element logits, const ChooseArguments& arguments, int64_t tokens,
                   cudaStream_t stream);
void launch_plan(const PlanArguments& arguments, int64_t tokens, int top_k, cudaStream_t stream);
void launch_choose_and_plan(Element logits, const ChooseArguments& choose,
                            const PlanArguments& plan, int64_t tokens, cudaStream_t stream);

}  // namespace farskip::cuda
