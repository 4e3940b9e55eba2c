#pragma once

#include "farskip/cuda/launch.h"

namespace farskip::cuda {

// Elements that a head may have.
inline constexpr int64_t max_head_size = 512;

// Heads of one kind in a tensor; strides in elements.
struct Heads {
  void* data;
  const void* norm;  // null: none
  int64_t token_stride, head_stride;
  int count;
};

struct GroupedRopeArguments {
  Heads q, k;
  const float *cos, *sin;  // [tokens, pairs]
  int64_t tokens;
  int size, pairs;
  float eps;
  bool interleaved;
};

void launch_grouped_rope(Element element, const GroupedRopeArguments& arguments,
                         cudaStream_t stream);

struct LatentRopeArguments {
  Heads q, k;  // data: where a head's part that rotates begins
  const void* k_rope;
  const float *cos, *sin;  // [tokens, pairs]
  int64_t rope_token_stride, tokens;
  int pairs;
  bool interleaved;
};

void launch_latent_rope(Element element, const LatentRopeArguments& arguments, cudaStream_t stream);

// Frequencies that a launch takes.
inline constexpr int max_frequencies = 256;

struct RopeTableArguments {
  float *cos, *sin;  // [tokens, pairs]
  const int64_t* positions;
  int64_t tokens;
  int pairs;
  float magnitude;
  float radians[max_frequencies];
};

void launch_rope_table(const RopeTableArguments& arguments, cudaStream_t stream);

}  // namespace farskip::cuda
