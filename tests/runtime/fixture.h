#pragma once

#include <memory>
#include <string>
#include <vector>

#include "farskip/io/checkpoint.h"
#include "farskip/io/safetensors.h"
#include "farskip/runtime/session.h"

namespace farskip::testing {

std::filesystem::path fixture_folder(const std::string& family);

// One of the tiny checkpoints under tests/fixtures, with its golden tensors.
struct Fixture {
  explicit Fixture(const std::string& family);
  // Loads the weights of every rank. Without `groups`: plain local ones.
  Session session(int ranks, at::ScalarType dtype = at::kFloat,
                  std::vector<std::unique_ptr<Group>> groups = {}) const;
  PlannedStep plan(const std::string& connectivity, int ranks, const TokenBatch& tokens,
                   const StepForm& form = {.schedule = "blocking"}) const;
  // All golden sequences: 2 of 48 tokens.
  TokenBatch golden_tokens() const;
  // Prefixes of the golden rows, taken in turn.
  TokenBatch prefixes(const std::vector<int64_t>& lengths) const;
  // golden rows that `prefixes` of these lengths should give, for logits [2, 48, V].
  at::Tensor golden_prefixes(const at::Tensor& logits, const std::vector<int64_t>& lengths) const;

  std::string family;
  Checkpoint checkpoint;
  SafetensorsFile golden;
  const ModelConfig& config() const { return checkpoint.config(); }
};

// max |a - b| / max |b|
double relative_error(const at::Tensor& a, const at::Tensor& b);

}  // namespace farskip::testing
