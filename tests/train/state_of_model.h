#pragma once

#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>

#include <vector>

#include "farskip/base/hash.h"
#include "farskip/train/state_file.h"

namespace farskip {

// A small model's parameters: 3 of 10 to 40 elements, and two of 6 experts each.
inline std::vector<FlatParameter> small_model() {
  return {{.name = "embedding", .elements = 40},
          {.name = "layer.1.experts.gate_up", .elements = 12, .of_experts = true},
          {.name = "layer.1.experts.down", .elements = 7, .of_experts = true},
          {.name = "layer.1.router", .elements = 10},
          {.name = "layer.1.router_bias", .elements = 6}};
}

// What element `index` of a parameter's master, m or v (part 0, 1, 2) is in the state that `salt`
// names; whoever keeps it.
inline float state_value(const ShardEntry& entry, size_t part, int64_t index, int64_t salt) {
  const uint64_t hash =
      Hasher().add(entry.name).add(entry.expert).add(part).add(index).add(salt).value();
  return static_cast<float>(splitmix64(hash) % 1'000'003);
}

inline bool has_moments(const ShardEntry& entry) { return entry.name != "layer.1.router_bias"; }

// Shards with all tensors zero.
inline std::vector<StateShard> empty_shards(const ShardList& list) {
  std::vector<StateShard> shards;
  for (const ShardEntry& entry : list) {
    const auto zeros = [&] { return at::full({entry.count}, 0.0, at::kFloat); };
    shards.push_back({.entry = entry, .master = zeros()});
    if (!has_moments(entry)) continue;
    shards.back().m = zeros();
    shards.back().v = zeros();
  }
  return shards;
}

inline std::vector<StateShard> filled_shards(const ShardList& list, int64_t salt) {
  std::vector<StateShard> shards = empty_shards(list);
  for (const StateShard& shard : shards) {
    const auto tensors = tensors_of(shard);
    for (size_t part = 0; part < tensors.size(); ++part) {
      for (int64_t i = 0; tensors[part].defined() && i < shard.entry.count; ++i) {
        tensors[part].mutable_data_ptr<float>()[i] =
            state_value(shard.entry, part, shard.entry.first + i, salt);
      }
    }
  }
  return shards;
}

// How many elements of the shards are not as in the state that `salt` names.
inline int64_t wrong_elements(const std::vector<StateShard>& shards, int64_t salt) {
  int64_t wrong = 0;
  for (const StateShard& shard : shards) {
    const auto tensors = tensors_of(shard);
    for (size_t part = 0; part < tensors.size(); ++part) {
      for (int64_t i = 0; tensors[part].defined() && i < shard.entry.count; ++i) {
        wrong += tensors[part].const_data_ptr<float>()[i] !=
                 state_value(shard.entry, part, shard.entry.first + i, salt);
      }
    }
  }
  return wrong;
}

// What rank `rank` of `ranks` keeps of the small model.
inline ShardList small_model_shard(int ranks, int rank) {
  const OptimizerShard shard =
      optimizer_shard(small_model(), Placement::contiguous(6, ranks), 1, rank);
  ShardList list = shard.shared.entries;
  list.insert(list.end(), shard.experts.entries.begin(), shard.experts.entries.end());
  return list;
}

}  // namespace farskip
