#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "farskip/graph/update.h"
#include "farskip/io/weights.h"
#include "farskip/train/state_file.h"

namespace farskip {

// A run of elements that one update treats alike.
struct UpdateRun {
  ShardEntry entry;
  WeightRole role = WeightRole::matrix;
  int64_t first = 0;  // of the bucket's part
};

// The memory of one bucket on one rank.
struct StoredBucket {
  std::vector<std::string> names;
  bool of_experts = false;
  // All parameters one behind the other, zeros up to a multiple of the ranks that have them.
  at::Tensor parameters;  // in the dtype that the model computes in
  at::Tensor gradients;   // the same elements
  // This rank's part; of experts all. Master weights of a part that is fp32 and all of the bucket
  // are the parameters themselves.
  at::Tensor master, m, v;  // fp32 [part]
  int64_t part_begin = 0;   // of the part in the bucket
  std::vector<UpdateRun> runs;

  bool updates_in_place() const { return master.is_alias_of(parameters); }
};

// A rank's parameters, gradients and optimizer state, laid out so that a bucket is one piece of
// memory: collectives and updates take it whole. One thread.
class ParameterStore {
 public:
  // Of rank `rank` of `ranks`: a multiple of the placement's, whose rank r % placement.ranks() says
  // which experts rank r has. Holds the parameters that are named, of a stage those of its layers.
  // Zeros everywhere. Parameters that are in no bucket are kept as they
  // are and never updated. Throws GraphError for a bucket that names an unknown weight.
  ParameterStore(const ModelConfig& model, const Placement& placement, int ranks, int rank,
                 const std::set<std::string>& names, std::span<const ParameterBucket> buckets,
                 at::ScalarType dtype, at::ScalarType gradients = at::kFloat,
                 at::Device device = at::kCPU);

  // Views into the buckets, by canonical name, for an executor.
  const Weights& weights() const { return weights_; }
  const Weights& gradients() const { return gradients_; }
  const std::vector<StoredBucket>& buckets() const { return buckets_; }
  // Elements that are trained, on this rank.
  int64_t trained_elements() const;

  // Takes over parameters and master weights; moments become zero. Throws ConfigError for a weight
  // that is missing or has another shape.
  void set_weights(const Weights& weights);

  // What this rank saves: its part of every bucket, and on rank 0 what is not trained.
  std::vector<StateShard> saved() const;
  // Calls `read` with what a rank needs when a run is resumed: its part of every bucket, what is
  // not trained, and the parameters of whole buckets. What `read` throws goes on.
  void load(const std::function<void(std::span<const StateShard>)>& read);

 private:
  void add_bucket(const ParameterBucket& bucket, const std::vector<WeightSpec>& specs,
                  const Placement& placement);
  // `whole`: fp32, of every bucket.
  void take_whole(const std::vector<at::Tensor>& whole);
  std::vector<StateShard> part_shards() const;
  std::vector<StateShard> untrained_shards() const;

  const int ranks_, rank_;
  const at::ScalarType dtype_, gradient_dtype_;
  const at::Device device_;
  std::vector<StoredBucket> buckets_;
  std::vector<ShardList> entries_;  // of whole buckets
  std::vector<std::string> untrained_;
  Weights weights_, gradients_;
};

}  // namespace farskip
