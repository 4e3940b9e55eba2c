#pragma once

#include <span>
#include <vector>

#include "farskip/runtime/sizes.h"

namespace farskip {

// Whether routing decides the size, anew in every step.
bool is_routed(const Graph& graph, const Dim& dim);

// Room for rows whose number routing decides anew in every step: for an eighth more than any step
// that was seen had, so that most steps to come fit. One thread.
class RowCapacity {
 public:
  // `sizes`, of that graph, must outlive it.
  RowCapacity(const Graph& graph, const Sizes& sizes);

  // A step went through with the sizes that are bound now.
  void see();
  // Some step that was seen had more rows than there is room for.
  bool is_outgrown() const;
  // Makes room for all steps that were seen.
  void grow();
  void forget();

  // Rows there is room for.
  int64_t of(SymbolId symbol) const { return capacity_[symbol]; }
  // The sizes are bound, and fit.
  bool fits(std::span<const SymbolId> symbols) const;

 private:
  const Sizes& sizes_;
  std::vector<SymbolId> routed_;
  std::vector<int64_t> seen_, capacity_;  // by symbol
};

}  // namespace farskip
