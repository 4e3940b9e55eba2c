#pragma once

#include <ATen/core/Tensor.h>

#include <span>
#include <vector>

#include "farskip/cuda/copy.h"
#include "farskip/cuda/copy_kernels.h"

namespace farskip::cuda {

// Copies of rows between contiguous tensors as addresses, empty ones left out. Throws Error if
// tensors or rows do not fit.
std::vector<CopyBatch> copy_batches(const at::Tensor& to, const at::Tensor& from,
                                    std::span<const RowCopy> copies);

}  // namespace farskip::cuda
