#pragma once

#include "farskip/cuda/launch.h"

namespace farskip::cuda {

struct CrossEntropyArguments {
  const void* logits;        // [tokens, vocabulary]
  const int64_t* labels;     // [tokens]; negative: none
  const float* label_count;  // [1]
  float* log_sum_exp;        // [tokens]; written by the loss, read by its gradient
  int64_t tokens, vocabulary;
};

// loss [1]; terms [tokens] is scratch.
void launch_cross_entropy(Element element, const CrossEntropyArguments& arguments, float* loss,
                          float* terms, cudaStream_t stream);

// out [tokens, vocabulary].
void launch_cross_entropy_gradient(Element element, const CrossEntropyArguments& arguments,
                                   void* out, cudaStream_t stream);

}  // namespace farskip::cuda
