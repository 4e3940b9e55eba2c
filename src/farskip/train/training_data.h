#pragma once

#include <cstdint>
#include <vector>

#include "farskip/io/data_order.h"
#include "farskip/io/token_file.h"
#include "farskip/runtime/executor.h"

namespace farskip {

// A token file as batches of sequences of one length, the same sequences whatever the ranks.
// Immutable, any thread.
class TrainingData {
 public:
  // `file` must outlive it. Throws ConfigError for a file with less than one sequence, or ids
  // beyond the model's vocabulary.
  TrainingData(const TokenFile& file, int64_t sequence_length, int64_t vocabulary, uint64_t seed);

  uint64_t windows() const { return order_.windows(); }

  // Sequences of a step (from 0) of `sequences` sequences in `micro_batches` equal parts: rank
  // `rank`'s share of each of parts [part, part + parts), one after the other. Inputs as
  // build_forward wants them for a loss; the label count is that of the whole step.
  Batch batch(uint64_t step, int64_t sequences, int64_t micro_batches, int64_t part, int64_t parts,
              int ranks, int rank) const;
  // The same for sequences [first, first + sequences) in the order of the file.
  Batch in_order(uint64_t first, int64_t sequences, int ranks, int rank) const;

 private:
  Batch make(const std::vector<uint64_t>& windows, int64_t labels) const;

  const TokenFile& file_;
  const int64_t sequence_length_;
  DataOrder order_;
};

}  // namespace farskip
