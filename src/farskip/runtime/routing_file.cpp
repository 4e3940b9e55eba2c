#include "farskip/runtime/routing_file.h"

#include <ATen/ops/gather.h>
#include <ATen/ops/sort.h>

#include <string>
#include <tuple>
#include <vector>

#include "farskip/base/error.h"
#include "farskip/io/safetensors.h"

namespace farskip {
namespace {

at::Tensor read(const SafetensorsFile& file, const std::filesystem::path& path,
                const std::string& name, int64_t tokens, int top_k) {
  const at::Tensor tensor = file.view(name);
  if (tensor.dim() != 2 || tensor.size(0) != tokens || tensor.size(1) != top_k) {
    throw FileError("another number of tokens or experts than the step has",
                    {.where = path.string() + ": " + name,
                     .expected = "[" + std::to_string(tokens) + ", " + std::to_string(top_k) + "]",
                     .found = std::to_string(tensor.numel()) + " values"});
  }
  return tensor;
}

// Experts of each token ascending, weights along with them: the order that kernels sum in.
Routing in_order(const at::Tensor& experts, const at::Tensor& weights) {
  auto [sorted, order] = at::sort(experts.to(at::kLong), -1);
  return {sorted.contiguous(), at::gather(weights, -1, order).contiguous()};
}

void check(const Routing& routing, const ModelConfig& model, const std::string& where) {
  if (routing.experts.numel() == 0) return;
  const int64_t low = routing.experts.min().item<int64_t>();
  const int64_t high = routing.experts.max().item<int64_t>();
  if (low < 0 || high >= model.router.experts) {
    throw FileError("an expert that the model does not have",
                    {.where = where,
                     .expected = "0 to " + std::to_string(model.router.experts - 1),
                     .found = std::to_string(low < 0 ? low : high)});
  }
  const int64_t last = routing.experts.size(1) - 1;
  const at::Tensor repeats =
      routing.experts.narrow(1, 0, last) == routing.experts.narrow(1, 1, last);
  if (last > 0 && repeats.any().item<bool>()) {
    throw FileError("a token has an expert twice", {.where = where});
  }
}

}  // namespace

RoutingRecord read_routing(const std::filesystem::path& path, const ModelConfig& model,
                           int64_t tokens) {
  const SafetensorsFile file(path);
  RoutingRecord record;
  for (int layer = 1; layer <= model.layer_count(); ++layer) {
    if (!model.layers[layer - 1].routed) continue;
    const std::string suffix = ".layers." + std::to_string(layer - 1);
    const at::Tensor experts = read(file, path, "experts" + suffix, tokens, model.router.top_k);
    const at::Tensor weights = read(file, path, "weights" + suffix, tokens, model.router.top_k);
    const bool whole = experts.scalar_type() == at::kLong || experts.scalar_type() == at::kInt;
    if (!whole || weights.scalar_type() != at::kFloat) {
      throw FileError("another dtype",
                      {.where = path.string() + ": layer " + std::to_string(layer - 1),
                       .expected = "experts I64 or I32, weights F32"});
    }
    record[layer] = in_order(experts, weights);
    check(record[layer], model, path.string() + ": experts" + suffix);
  }
  return record;
}

void write_routing(const std::filesystem::path& path, const RoutingRecord& record) {
  std::vector<NamedTensor> tensors;
  for (const auto& [layer, routing] : record) {
    const std::string suffix = ".layers." + std::to_string(layer - 1);
    tensors.push_back({"experts" + suffix, routing.experts});
    tensors.push_back({"weights" + suffix, routing.weights});
  }
  write_safetensors(path, tensors);
}

}  // namespace farskip
