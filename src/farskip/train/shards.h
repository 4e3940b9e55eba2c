#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "farskip/model/placement.h"

namespace farskip {

// A parameter of the whole model, laid out flat. Experts that one tensor holds on a rank are
// parameters each for itself here: whichever rank has them, expert 5 is expert 5.
struct FlatParameter {
  std::string name;         // canonical, as in io/weight_specs.h
  int64_t elements = 0;     // of all of it, or of one expert
  bool of_experts = false;  // there is one for each expert of the model
};

// A run of elements of one parameter.
struct ShardEntry {
  std::string name;
  int expert = -1;  // -1: not of experts
  int64_t first = 0, count = 0;

  int64_t end() const { return first + count; }
  bool operator==(const ShardEntry&) const = default;
};

// Runs that lie one behind the other in a rank's memory.
using ShardList = std::vector<ShardEntry>;
int64_t elements_of(std::span<const ShardEntry> list);

// "embedding[0:4096]", "layer.2.experts.down[5][128:256]"; and back, nothing for other text.
std::string to_string(const ShardEntry& entry);
std::optional<ShardEntry> parse_shard_entry(std::string_view text);

// What a rank computes with: every parameter that is not of experts whole, and its own experts in
// ascending order, parameter after parameter. Throws ConfigError for a rank outside the placement.
ShardList held_entries(std::span<const FlatParameter> parameters, const Placement& placement,
                       int rank);

// One rank's part of a bucket that is cut evenly, as a reduce-scatter cuts it.
struct BucketPart {
  ShardList entries;
  int64_t begin = 0;   // where it starts in the bucket
  int64_t length = 0;  // the same for every part; elements behind those of `entries` are padding
};

// Part `part` of a bucket cut into `parts`: each part is ceil(elements / parts) long, rounded up to
// a multiple of `unit`; the bucket counts as padded at its end up to parts x length. Throws
// ConfigError for no such part.
BucketPart cut_bucket(std::span<const ShardEntry> bucket, int parts, int part, int64_t unit = 1);

// What of the optimizer's state a rank keeps, so that over all ranks every element is kept once.
struct OptimizerShard {
  BucketPart shared;   // of what every rank computes with, cut over all ranks
  BucketPart experts;  // of the rank's own experts, cut over the ranks that have the same ones
};

// Of `data_parallel` groups of placement.ranks() ranks, where rank r has the experts of rank
// r % placement.ranks() of the placement. Throws ConfigError for no such rank.
OptimizerShard optimizer_shard(std::span<const FlatParameter> parameters,
                               const Placement& placement, int data_parallel, int rank);

// A run of elements that moves from a saved list into a needed one.
struct ShardCopy {
  struct Place {
    size_t entry = 0;    // of the list
    int64_t offset = 0;  // from the first element of that entry
    bool operator==(const Place&) const = default;
  };
  size_t file = 0;  // which saved list
  Place from, to;
  int64_t count = 0;
  bool operator==(const ShardCopy&) const = default;
};

// What the ranks of some layout saved, so that it can be put together for another one. Lists may
// overlap. Immutable; any thread.
class SavedShards {
 public:
  explicit SavedShards(std::span<const ShardList> saved);

  // The copies that fill `needed`: every element exactly once, in order, in as few runs as can be.
  // Throws ConfigError naming the parameter and the first element that no list has.
  std::vector<ShardCopy> plan(std::span<const ShardEntry> needed) const;

 private:
  // Where a saved list has a run of a parameter.
  struct Run {
    int64_t first = 0, end = 0;
    size_t file = 0, entry = 0;
  };

  const Run* find(const ShardEntry& of, int64_t element) const;

  size_t lists_;
  std::map<std::pair<std::string, int>, std::vector<Run>> runs_;  // of a parameter, by first
};

}  // namespace farskip
