#pragma once

namespace farskip::cuda {

// How logits become a choice: RouterConfig's part in it, already checked.
struct RouterRule {
  enum class Scoring { softmax, sigmoid, softmax_of_chosen };
  enum class GroupScore { best, sum_of_best_two };
  int experts = 0, top_k = 0;
  Scoring scoring = Scoring::softmax;
  int groups = 1, kept_groups = 1;
  GroupScore group_score = GroupScore::best;
  float masked_score = 0.0f;
  bool normalize = false;
  float normalize_epsilon = 0.0f;
  float scale = 1.0f;
};

}  // namespace farskip::cuda
