#include "farskip/runtime/bind_weights.h"

#include <string>

#include "farskip/base/error.h"
#include "farskip/runtime/dtypes.h"

namespace farskip {

void bind_weights(const Graph& graph, ValueKind kind, const Sizes& sizes, const Weights& weights,
                  std::vector<at::Tensor>& tensors) {
  const std::string what = kind == ValueKind::gradient ? "the gradient of a weight" : "a weight";
  for (const Value& value : graph.values()) {
    if (value.kind != kind) continue;
    const auto found = weights.find(value.name);
    if (found == weights.end()) {
      throw ConfigError(what + " is missing", {.where = value.name});
    }
    at::Tensor tensor = found->second;
    if (value.chunks > 1) {
      const Range rows = even_cut(tensor.size(0), value.chunk, value.chunks);
      tensor = tensor.narrow(0, rows.first, rows.size());
    }
    std::vector<int64_t> shape;
    for (const Dim& dim : value.shape) shape.push_back(sizes.of(dim));
    const at::ScalarType type = scalar_type_of(value.dtype);
    if (tensor.sizes() != at::IntArrayRef(shape) || tensor.scalar_type() != type) {
      throw ConfigError(
          what + " has another shape or dtype than the graph",
          {.where = value.name,
           .expected = c10::str(at::IntArrayRef(shape)) + " " + c10::toString(type),
           .found = c10::str(tensor.sizes()) + " " + c10::toString(tensor.scalar_type())});
    }
    tensors[value.id] = tensor;
  }
}

}  // namespace farskip
