#pragma once

#include "farskip/cuda/divide.cuh"
#include "farskip/cuda/pack.cuh"
#include "farskip/cuda/routing_kernels.h"

// One warp chooses the experts of one token. Lane l holds experts l, l + 32, ...: loads are
// coalesced, and ballots give the order of ids.
namespace farskip::cuda {

// Numbers that order like the floats, and are never 0, which stands for "nothing".
__device__ __forceinline__ uint32_t order_key(float value) {
  const uint32_t bits = __float_as_uint(value + 0.0f);  // -0 and 0 are equal
  const uint32_t key = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
  return max(key, 1u);
}

__device__ __forceinline__ float value_of_key(uint32_t key) {
  return __uint_as_float(key & 0x80000000u ? key & 0x7fffffffu : ~key);
}

__device__ __forceinline__ int lane_index() { return static_cast<int>(threadIdx.x % warp_size); }

__device__ __forceinline__ unsigned lanes_below() { return (1u << lane_index()) - 1; }

// The lowest lane that holds the largest key.
__device__ __forceinline__ int best_lane(uint32_t key) {
  return __ffs(__ballot_sync(full_warp, key == __reduce_max_sync(full_warp, key))) - 1;
}

template <int PerLane>
__device__ __forceinline__ void softmax(float (&values)[PerLane]) {
  float largest = values[0];
#pragma unroll
  for (int i = 1; i < PerLane; ++i) largest = fmaxf(largest, values[i]);
#pragma unroll
  for (int mask = warp_size / 2; mask > 0; mask /= 2) {
    largest = fmaxf(largest, __shfl_xor_sync(full_warp, largest, mask));
  }
  float sum = 0.0f;
#pragma unroll
  for (int i = 0; i < PerLane; ++i) sum += values[i] = expf(values[i] - largest);
  sum = warp_sum(sum);
#pragma unroll
  for (int i = 0; i < PerLane; ++i) values[i] /= sum;
}

// Gives experts outside the best groups the rule's masked score.
template <int PerLane>
__device__ __forceinline__ void limit_groups(float (&choice)[PerLane], const RouterRule& rule,
                                             const Divisor& group_size) {
  const int lane = lane_index();
  int group[PerLane];
#pragma unroll
  for (int i = 0; i < PerLane; ++i) {
    const int id = i * warp_size + lane;
    group[i] = id < rule.experts ? static_cast<int>(group_size.quotient(id)) : -1;
  }
  uint32_t my_group = 0;  // lane g: key of group g's score
  for (int g = 0; g < rule.groups; ++g) {
    uint32_t best = 0, second = 0;
#pragma unroll
    for (int i = 0; i < PerLane; ++i) {
      const uint32_t key = group[i] == g ? order_key(choice[i]) : 0;
      second = max(second, min(best, key));
      best = max(best, key);
    }
    const uint32_t largest = __reduce_max_sync(full_warp, best);
    float score = value_of_key(largest);
    if (rule.group_score == RouterRule::GroupScore::sum_of_best_two) {
      const uint32_t left = lane == best_lane(best) ? second : best;
      score += value_of_key(__reduce_max_sync(full_warp, left));
    }
    if (lane == g) my_group = order_key(score);
  }
  unsigned kept = 0;
  for (int i = 0; i < rule.kept_groups; ++i) {
    const int winner = best_lane(my_group);
    kept |= 1u << winner;
    if (lane == winner) my_group = 0;
  }
#pragma unroll
  for (int i = 0; i < PerLane; ++i) {
    if (group[i] >= 0 && (kept >> group[i] & 1u) == 0) choice[i] = rule.masked_score;
  }
}

// Bit i: the expert i * 32 + lane is among the k best, the lower id first among equals.
template <int PerLane>
__device__ __forceinline__ unsigned best_experts(const float (&choice)[PerLane], int experts,
                                                 int k) {
  const int lane = lane_index();
  uint32_t keys[PerLane];
#pragma unroll
  for (int i = 0; i < PerLane; ++i) {
    keys[i] = i * warp_size + lane < experts ? order_key(choice[i]) : 0;
  }
  unsigned chosen = 0;
  for (int round = 0; round < k; ++round) {
    uint32_t best = 0, id = lane;
#pragma unroll
    for (int i = 0; i < PerLane; ++i) {
      if (keys[i] > best) id = i * warp_size + lane;
      best = max(best, keys[i]);
    }
    const bool candidate = best == __reduce_max_sync(full_warp, best);
    const uint32_t winner = __reduce_min_sync(full_warp, candidate ? id : ~0u);
#pragma unroll
    for (int i = 0; i < PerLane; ++i) {
      if (i * warp_size + lane != static_cast<int>(winner)) continue;
      keys[i] = 0;
      chosen |= 1u << i;
    }
  }
  return chosen;
}

// Sum of the first k of `values`, in order.
__device__ __forceinline__ float sum_in_order(const float* values, int k) {
  float sum = 0.0f;
  for (int j = 0; j < k; ++j) sum += values[j];
  return sum;
}

// The final weight of this lane's slot; `scores` (shared, of this warp) holds all slots' scores.
__device__ __forceinline__ float weigh(float* scores, const RouterRule& rule) {
  const int lane = lane_index();
  float weight = lane < rule.top_k ? scores[lane] : 0.0f;
  if (rule.scoring == RouterRule::Scoring::softmax_of_chosen) {
    float largest = scores[0];
    for (int j = 1; j < rule.top_k; ++j) largest = fmaxf(largest, scores[j]);
    __syncwarp();
    scores[lane] = expf(weight - largest);
    __syncwarp();
    weight = scores[lane] / sum_in_order(scores, rule.top_k);
    __syncwarp();
    scores[lane] = weight;
    __syncwarp();
  }
  float divisor = 1.0f;
  if (rule.normalize) divisor = sum_in_order(scores, rule.top_k) + rule.normalize_epsilon;
  return weight / divisor * rule.scale;
}

// `scores`: 32 floats of shared memory for this warp alone.
template <typename Logit, int PerLane>
__device__ __forceinline__ void choose_token(const ChooseArguments& a, const Divisor& group_size,
                                             int64_t token, float* scores) {
  const RouterRule& rule = a.rule;
  const int lane = lane_index();
  const Logit* const logits = static_cast<const Logit*>(a.logits) + token * rule.experts;
  float score[PerLane], choice[PerLane];
#pragma unroll
  for (int i = 0; i < PerLane; ++i) {
    const int id = i * warp_size + lane;
    score[i] = id < rule.experts ? to_float(logits[id]) : -INFINITY;
  }
  if (rule.scoring == RouterRule::Scoring::softmax) softmax<PerLane>(score);
  if (rule.scoring == RouterRule::Scoring::sigmoid) {
#pragma unroll
    for (int i = 0; i < PerLane; ++i) score[i] = 1.0f / (1.0f + expf(-score[i]));
  }
#pragma unroll
  for (int i = 0; i < PerLane; ++i) {
    const int id = i * warp_size + lane;
    choice[i] = a.bias != nullptr && id < rule.experts ? score[i] + a.bias[id] : score[i];
  }
  if (rule.groups > 1) limit_groups<PerLane>(choice, rule, group_size);
  const unsigned chosen = best_experts<PerLane>(choice, rule.experts, rule.top_k);
  int before = 0;
#pragma unroll
  for (int i = 0; i < PerLane; ++i) {
    const bool mine = chosen >> i & 1u;
    const unsigned all = __ballot_sync(full_warp, mine);
    const int slot = before + __popc(all & lanes_below());
    if (mine) {
      scores[slot] = score[i];
      a.experts[token * rule.top_k + slot] = i * warp_size + lane;
    }
    before += __popc(all);
  }
  __syncwarp();
  const float weight = weigh(scores, rule);
  if (lane < rule.top_k) a.weights[token * rule.top_k + lane] = weight;
  __syncwarp();  // before the next token's scores
}

}  // namespace farskip::cuda
