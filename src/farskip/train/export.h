#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>

#include "farskip/base/json.h"
#include "farskip/io/weights.h"
#include "farskip/train/checkpoint.h"

namespace farskip {

// Rows of a weight, or of one expert where spec.of_experts(): of a vector, elements.
struct WeightRows {
  const WeightSpec& spec;  // of a rank that holds every expert
  int expert = -1;
  int64_t begin = 0, count = 0;

  // [count, columns], or [count] of a vector.
  std::vector<int64_t> shape() const;
};

// Gives such rows in any floating dtype, on any device, with any strides.
using WeightSource = std::function<at::Tensor(const WeightRows&)>;

// From the weights of all ranks of a placement, which must outlive the source: of_ranks[r] of rank
// r. Throws ConfigError for another number of ranks.
WeightSource weights_of_ranks(std::span<const Weights> of_ranks, const Placement& placement);

// From the master weights of a training checkpoint, which must outlive the source.
WeightSource weights_of_checkpoint(const TrainingCheckpoint& checkpoint);

struct ExportOptions {
  at::ScalarType dtype = at::kBFloat16;     // or float32; what load_weights keeps fp32 stays it
  uint64_t bytes_per_file = 5'000'000'000;  // beyond this weights go into several files
  std::filesystem::path companions_from;    // a folder whose tokenizer and generation files are
                                            // copied; empty: none
};

// Writes a Hugging Face checkpoint folder, whole or not at all: weights under the names of the
// model's family on the hub, an expert's apart; config.json with the fields of `config_text` in
// their order, its dtype set, its quantization left out, and the connectivity
// (Connectivity::to_json) as read_stored_connectivity reads it. One tensor at a time is in memory.
// Throws FileError if anything but an empty folder stands there or something can not be written,
// ConfigError for a config that is none, UnsupportedError for a model that is not executable or
// another dtype, and what the source throws.
void export_checkpoint(const std::filesystem::path& folder, const std::string& config_text,
                       const Json& connectivity, const WeightSource& source,
                       const ExportOptions& options = {});

}  // namespace farskip
