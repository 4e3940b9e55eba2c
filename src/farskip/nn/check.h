#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string_view>

namespace farskip {

// Throws Error naming `name` unless `tensor` is defined and has `shape`; -1 matches any size.
void require_shape(const at::Tensor& tensor, at::IntArrayRef shape, std::string_view name);

// Throws Error naming `name` unless `tensor` is defined and of dtype `dtype`.
void require_dtype(const at::Tensor& tensor, at::ScalarType dtype, std::string_view name);

// Throws Error naming `name` unless the last dimension of `tensor` is dense (stride 1).
void require_dense_rows(const at::Tensor& tensor, std::string_view name);

// Throws Error naming `name` unless 0 <= index < size.
void require_index(int64_t index, int64_t size, const char* name);

}  // namespace farskip
