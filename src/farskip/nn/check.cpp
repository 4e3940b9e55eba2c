#include "farskip/nn/check.h"

#include <string>

#include "farskip/base/error.h"

namespace farskip {
namespace {

std::string shape_text(at::IntArrayRef shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) {
    if (i > 0) text += ", ";
    text += shape[i] < 0 ? "any" : std::to_string(shape[i]);
  }
  return text + "]";
}

bool matches(at::IntArrayRef found, at::IntArrayRef expected) {
  if (found.size() != expected.size()) return false;
  for (size_t i = 0; i < found.size(); ++i) {
    if (expected[i] >= 0 && expected[i] != found[i]) return false;
  }
  return true;
}

void require_defined(const at::Tensor& tensor, std::string_view name) {
  if (!tensor.defined()) {
    throw Error("tensor is missing", {.where = std::string(name),
                                      .expected = "a tensor",
                                      .found = "an undefined one",
                                      .hint = {}});
  }
}

}  // namespace

void require_shape(const at::Tensor& tensor, at::IntArrayRef shape, std::string_view name) {
  require_defined(tensor, name);
  if (matches(tensor.sizes(), shape)) return;
  throw Error("tensor has the wrong shape", {.where = std::string(name),
                                             .expected = shape_text(shape),
                                             .found = shape_text(tensor.sizes()),
                                             .hint = {}});
}

void require_dtype(const at::Tensor& tensor, at::ScalarType dtype, std::string_view name) {
  require_defined(tensor, name);
  if (tensor.scalar_type() == dtype) return;
  throw Error("tensor has the wrong dtype", {.where = std::string(name),
                                             .expected = at::toString(dtype),
                                             .found = at::toString(tensor.scalar_type()),
                                             .hint = {}});
}

void require_dense_rows(const at::Tensor& tensor, std::string_view name) {
  require_defined(tensor, name);
  if (tensor.dim() == 0 || tensor.stride(-1) == 1 || tensor.size(-1) <= 1) return;
  throw Error("tensor's last dimension is strided",
              {.where = std::string(name),
               .expected = "stride 1",
               .found = "stride " + std::to_string(tensor.stride(-1)),
               .hint = "pass a contiguous tensor"});
}

void require_index(int64_t index, int64_t size, const char* name) {
  if (index >= 0 && index < size) return;
  throw Error("index is out of range", {.where = name,
                                        .expected = "0 to " + std::to_string(size - 1),
                                        .found = std::to_string(index),
                                        .hint = {}});
}

}  // namespace farskip
