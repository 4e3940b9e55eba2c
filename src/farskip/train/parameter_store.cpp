#include "farskip/train/parameter_store.h"

#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <iterator>

#include "farskip/base/error.h"

namespace farskip {
namespace {

const WeightSpec& spec_of(const std::vector<WeightSpec>& specs, const std::string& name) {
  const auto found = std::ranges::find(specs, name, &WeightSpec::name);
  if (found != specs.end()) return *found;
  throw GraphError("a bucket holds an unknown parameter", {.where = name});
}

int64_t elements_of(const WeightSpec& spec) {
  int64_t count = 1;
  for (int64_t size : spec.shape) count *= size;
  return count;
}

// Experts are entries each for itself.
void append_entries(ShardList& entries, const WeightSpec& spec, const Placement& placement,
                    int rank) {
  if (!spec.of_experts()) {
    entries.push_back({.name = spec.name, .count = elements_of(spec)});
    return;
  }
  const int64_t each = elements_of(spec) / spec.shape[0];
  for (int expert : placement.experts_of(rank)) {
    entries.push_back({.name = spec.name, .expert = expert, .count = each});
  }
}

}  // namespace

ParameterStore::ParameterStore(const ModelConfig& model, const Placement& placement, int ranks,
                               int rank, const std::set<std::string>& names,
                               std::span<const ParameterBucket> buckets, at::ScalarType dtype,
                               at::ScalarType gradients, at::Device device)
    : ranks_(ranks), rank_(rank), dtype_(dtype), gradient_dtype_(gradients), device_(device) {
  const int expert_rank = rank % placement.ranks();
  const std::vector<WeightSpec> specs = weight_specs(model, placement, expert_rank, dtype);
  std::set<std::string> bucketed;
  for (const ParameterBucket& bucket : buckets) {
    add_bucket(bucket, specs, placement);
    bucketed.insert(bucket.names.begin(), bucket.names.end());
  }
  for (const WeightSpec& spec : specs) {
    if (bucketed.count(spec.name) != 0 || names.count(spec.name) == 0) continue;
    untrained_.push_back(spec.name);
    weights_[spec.name] = at::zeros(spec.shape, at::TensorOptions(spec.dtype).device(device));
  }
}

void ParameterStore::add_bucket(const ParameterBucket& bucket, const std::vector<WeightSpec>& specs,
                                const Placement& placement) {
  ShardList entries;
  for (const std::string& name : bucket.names) {
    append_entries(entries, spec_of(specs, name), placement, rank_ % placement.ranks());
  }
  const int parts = bucket.of_experts ? ranks_ / placement.ranks() : ranks_;
  // As many elements for each expert (graph/update.h), so that lengths are multiples of experts.
  const int expert_rank = rank_ % placement.ranks();
  const BucketPart part =
      bucket.of_experts ? cut_bucket(entries, parts, rank_ / placement.ranks(),
                                     static_cast<int64_t>(placement.experts_of(expert_rank).size()))
                        : cut_bucket(entries, parts, rank_);
  const at::TensorOptions options = at::TensorOptions().device(device_);
  StoredBucket stored;
  stored.names = bucket.names;
  stored.of_experts = bucket.of_experts;
  stored.part_begin = part.begin;
  stored.parameters = at::zeros({part.length * parts}, options.dtype(dtype_));
  stored.gradients = at::zeros({part.length * parts}, options.dtype(gradient_dtype_));
  const bool in_place = parts == 1 && dtype_ == at::kFloat;
  stored.master =
      in_place ? stored.parameters : at::zeros({part.length}, options.dtype(at::kFloat));
  stored.m = at::zeros({part.length}, options.dtype(at::kFloat));
  stored.v = at::zeros({part.length}, options.dtype(at::kFloat));
  int64_t first = 0;
  for (const ShardEntry& entry : part.entries) {
    stored.runs.push_back({entry, spec_of(specs, entry.name).role, first});
    first += entry.count;
  }
  first = 0;
  for (const std::string& name : bucket.names) {
    const WeightSpec& spec = spec_of(specs, name);
    const int64_t count = elements_of(spec);
    weights_[name] = stored.parameters.narrow(0, first, count).view(spec.shape);
    gradients_[name] = stored.gradients.narrow(0, first, count).view(spec.shape);
    first += count;
  }
  buckets_.push_back(std::move(stored));
  entries_.push_back(std::move(entries));
}

int64_t ParameterStore::trained_elements() const {
  int64_t count = 0;
  for (const auto& [name, gradient] : gradients_) count += gradient.numel();
  return count;
}

void ParameterStore::set_weights(const Weights& weights) {
  auto value_of = [&](const std::string& name) {
    const auto found = weights.find(name);
    if (found != weights.end() && found->second.sizes() == weights_.at(name).sizes()) {
      return found->second;
    }
    throw ConfigError("a weight is missing or has another shape",
                      {.where = name,
                       .expected = c10::str(weights_.at(name).sizes()),
                       .found = found == weights.end() ? "none" : c10::str(found->second.sizes())});
  };
  for (const std::string& name : untrained_) weights_.at(name).copy_(value_of(name));
  std::vector<at::Tensor> whole;
  for (const StoredBucket& bucket : buckets_) {
    whole.push_back(at::zeros_like(bucket.parameters, at::kFloat));
    int64_t first = 0;
    for (const std::string& name : bucket.names) {
      const at::Tensor value = value_of(name);
      whole.back().narrow(0, first, value.numel()).copy_(value.flatten());
      first += value.numel();
    }
    bucket.m.zero_();
    bucket.v.zero_();
  }
  take_whole(whole);
}

void ParameterStore::take_whole(const std::vector<at::Tensor>& whole) {
  for (size_t i = 0; i < buckets_.size(); ++i) {
    StoredBucket& bucket = buckets_[i];
    bucket.parameters.copy_(whole[i]);
    bucket.master.copy_(whole[i].narrow(0, bucket.part_begin, bucket.master.size(0)));
  }
}

std::vector<StateShard> ParameterStore::part_shards() const {
  std::vector<StateShard> shards;
  for (const StoredBucket& bucket : buckets_) {
    for (const UpdateRun& run : bucket.runs) {
      auto part = [&](const at::Tensor& x) { return x.narrow(0, run.first, run.entry.count); };
      shards.push_back({run.entry, part(bucket.master), part(bucket.m), part(bucket.v)});
    }
  }
  return shards;
}

std::vector<StateShard> ParameterStore::untrained_shards() const {
  std::vector<StateShard> shards;
  for (const std::string& name : untrained_) {
    const at::Tensor& tensor = weights_.at(name);
    shards.push_back({{.name = name, .count = tensor.numel()}, tensor.view({-1})});
  }
  return shards;
}

std::vector<StateShard> ParameterStore::saved() const {
  std::vector<StateShard> shards = part_shards();
  if (rank_ == 0) std::ranges::move(untrained_shards(), std::back_inserter(shards));
  return shards;
}

void ParameterStore::load(const std::function<void(std::span<const StateShard>)>& read) {
  std::vector<StateShard> shards = part_shards();
  std::ranges::move(untrained_shards(), std::back_inserter(shards));
  std::vector<at::Tensor> whole;
  for (size_t i = 0; i < buckets_.size(); ++i) {
    whole.push_back(at::zeros_like(buckets_[i].parameters, at::kFloat));
    int64_t first = 0;
    for (const ShardEntry& entry : entries_[i]) {
      shards.push_back({entry, whole[i].narrow(0, first, entry.count)});
      first += entry.count;
    }
  }
  read(shards);
  take_whole(whole);
}

}  // namespace farskip
