#include "farskip/train/training_data.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>

#include <numeric>

#include "farskip/base/error.h"
#include "farskip/nn/rope.h"
#include "farskip/runtime/session.h"

namespace farskip {
namespace {

uint64_t checked_windows(const TokenFile& file, int64_t sequence_length, int64_t vocabulary) {
  if (file.source().vocabulary > vocabulary) {
    throw ConfigError("the tokens are of a larger vocabulary than the model's",
                      {.where = file.path().string(),
                       .expected = "at most " + std::to_string(vocabulary) + " ids",
                       .found = std::to_string(file.source().vocabulary)});
  }
  const uint64_t windows = window_count(file.size(), sequence_length);
  if (windows > 0) return windows;
  throw ConfigError("the tokens are fewer than one sequence",
                    {.where = file.path().string(),
                     .expected = std::to_string(sequence_length + 1) + " or more",
                     .found = std::to_string(file.size())});
}

std::vector<uint64_t> share_of(const std::vector<uint64_t>& windows, int ranks, int rank) {
  const Range share = distribute(static_cast<int64_t>(windows.size()), ranks).at(rank);
  return {windows.begin() + share.first, windows.begin() + share.last};
}

}  // namespace

TrainingData::TrainingData(const TokenFile& file, int64_t sequence_length, int64_t vocabulary,
                           uint64_t seed)
    : file_(file),
      sequence_length_(sequence_length),
      order_(checked_windows(file, sequence_length, vocabulary), seed) {}

Batch TrainingData::batch(uint64_t step, int64_t sequences, int64_t micro_batches, int64_t part,
                          int64_t parts, int ranks, int rank) const {
  const std::vector<uint64_t> all = order_.sequences_of_step(step, sequences);
  const int64_t each = sequences / micro_batches;
  std::vector<uint64_t> own;
  for (int64_t p = part; p < part + parts; ++p) {
    const std::vector<uint64_t> windows(all.begin() + p * each, all.begin() + (p + 1) * each);
    const std::vector<uint64_t> share = share_of(windows, ranks, rank);
    own.insert(own.end(), share.begin(), share.end());
  }
  return make(own, sequences * sequence_length_);
}

Batch TrainingData::in_order(uint64_t first, int64_t sequences, int ranks, int rank) const {
  std::vector<uint64_t> windows(static_cast<size_t>(sequences));
  std::iota(windows.begin(), windows.end(), first);
  return make(share_of(windows, ranks, rank), sequences * sequence_length_);
}

Batch TrainingData::make(const std::vector<uint64_t>& windows, int64_t labels) const {
  const int64_t sequences = static_cast<int64_t>(windows.size());
  const at::Tensor ids = at::empty({sequences, sequence_length_ + 1}, at::kLong);
  int64_t* row = ids.mutable_data_ptr<int64_t>();
  for (uint64_t window : windows) {
    file_.read(window * static_cast<uint64_t>(sequence_length_),
               {row, static_cast<size_t>(sequence_length_) + 1});
    row += sequence_length_ + 1;
  }
  Batch batch;
  batch.lengths.assign(windows.size(), sequence_length_);
  batch.inputs["input_ids"] = ids.narrow(1, 0, sequence_length_).flatten();
  batch.inputs["labels"] = ids.narrow(1, 1, sequence_length_).flatten();
  batch.inputs["positions"] = sequence_positions(batch.lengths);
  batch.inputs["label_count"] = at::full({1}, labels, at::kFloat);
  return batch;
}

}  // namespace farskip
