#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <initializer_list>
#include <string_view>

#include "farskip/cuda/launch.h"

namespace farskip::cuda {

// Throws Error naming `name` unless `tensor` is defined, on a GPU and shaped like `shape`; -1
// matches any size.
void require_on_gpu(const at::Tensor& tensor, at::IntArrayRef shape, std::string_view name);

// As require_on_gpu, and of dtype `dtype`.
void require_on_gpu(const at::Tensor& tensor, at::IntArrayRef shape, at::ScalarType dtype,
                    std::string_view name);

// Throws Error naming `function` unless all tensors lie on the device of the first; undefined ones
// are passed over.
void require_one_device(std::string_view function,
                        std::initializer_list<std::reference_wrapper<const at::Tensor>> tensors);

// Throws Error naming `name` unless the tensor is contiguous.
void require_contiguous(const at::Tensor& tensor, std::string_view name);

// Throws Error naming `name` unless the last dimension is dense.
void require_dense_rows(const at::Tensor& tensor, std::string_view name);

// The kernels' name for a tensor's dtype. Throws UnsupportedError for others than fp32 and bf16.
Element element_of(const at::Tensor& tensor, std::string_view name);

// Throws UnsupportedError naming `name` unless `rows` of `width` elements are at most 2^30
// accesses of 16 bytes: kernels count those in 32 bits.
void require_few_packs(int64_t rows, int64_t width, Element element, std::string_view name);

// Throws UnsupportedError naming `name` unless kernels take so many choices a token.
void require_choices(int64_t top_k, std::string_view name);

// The stream that kernels on the tensor's device go to: the calling thread's current one.
cudaStream_t stream_of(const at::Tensor& tensor);

}  // namespace farskip::cuda
