#pragma once

#include <cstdint>
#include <optional>

#include "farskip/eval/evaluator.h"
#include "farskip/eval/grade.h"
#include "farskip/io/token_file.h"

namespace farskip {

struct LossOptions {
  int64_t sequence_length = 512;    // inputs of a window
  std::optional<uint64_t> windows;  // at most so many, from the start of the file
};

struct LossResult {
  uint64_t tokens = 0;  // predicted
  uint64_t windows = 0;
  double loss = 0;                       // nats a token: the mean over tokens
  std::optional<double> standard_error;  // of the windows' own means
  double perplexity() const;
  // Bits a byte of text, by the file's ratio of bytes to tokens; nothing where it tells no bytes.
  std::optional<double> bits_per_byte;
};

// Loss of a model on a token file: cut into windows of sequence_length + 1 ids that share one, the
// last one shorter, so that every id but the first is predicted once, behind at most
// sequence_length ids. Collective, as Evaluator::score. Throws ConfigError for sequence_length < 1;
// FileError for a file of fewer than two ids.
LossResult evaluate_loss(Evaluator& evaluator, const TokenFile& file, const LossOptions& options,
                         Progress* progress = nullptr);

}  // namespace farskip
