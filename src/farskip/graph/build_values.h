#pragma once

#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "farskip/graph/build.h"

namespace farskip {

// What the blocks of a forward step are built from: the graph so far, its sizes, and the values
// that many of them have.
class StepValues {
 public:
  StepValues(const ModelConfig& model, const StepSpec& spec);

  bool replicated() const { return spec.form == ParallelForm::replicated_all_reduce; }
  // Zero experts get no rows, so how many there are is for counts to say.
  bool alone() const { return spec.ranks == 1 && model.router.zero_experts == 0; }
  bool exchanges() const { return !replicated() && !alone(); }
  bool per_rank() const { return exchanges() && spec.dispatch == DispatchForm::per_rank; }
  // What a rank has of a size that attention, shared experts and dense MLPs are split by.
  int64_t share(int64_t size) const;
  Attributes at(int layer) const { return {.layer = layer, .ranks = spec.ranks}; }

  // A row for each of the rank's tokens.
  Value rows(std::string name, std::vector<int64_t> widths, DType dtype) const;
  ValueId add_rows(std::string name, std::vector<int64_t> widths);
  // The same value for the same name. Without a dtype: the step's.
  ValueId parameter(const std::string& name, std::vector<int64_t> shape);
  ValueId parameter(const std::string& name, std::vector<int64_t> shape, DType dtype);
  static std::string weight(int layer, const std::string& name) {
    return "layer." + std::to_string(layer) + "." + name;
  }

  const ModelConfig& model;
  const StepSpec& spec;
  GraphBuilder builder;
  const SymbolId tokens, sequences, local_experts;

 private:
  std::map<std::string, ValueId> parameters_;
};

}  // namespace farskip
