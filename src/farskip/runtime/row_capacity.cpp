#include "farskip/runtime/row_capacity.h"

#include <algorithm>

namespace farskip {
namespace {

// Grouped products choose another kernel beyond so many rows: room must not change the choice.
constexpr int64_t few_rows = 128;

int64_t with_room(int64_t rows) {
  if (rows <= few_rows) return few_rows;
  return (rows + rows / 8 + few_rows - 1) / few_rows * few_rows;
}

}  // namespace

bool is_routed(const Graph& graph, const Dim& dim) {
  return !dim.exact() && is_routed(graph.symbol(dim.symbol).kind);
}

RowCapacity::RowCapacity(const Graph& graph, const Sizes& sizes)
    : sizes_(sizes), seen_(graph.symbols().size(), 0), capacity_(graph.symbols().size(), 0) {
  for (size_t i = 0; i < graph.symbols().size(); ++i) {
    if (is_routed(graph.symbols()[i].kind)) routed_.push_back(static_cast<SymbolId>(i));
  }
}

void RowCapacity::see() {
  for (SymbolId symbol : routed_) {
    if (!sizes_.bound(symbol)) continue;
    seen_[symbol] = std::max(seen_[symbol], sizes_.of({.size = 1, .symbol = symbol}));
  }
}

bool RowCapacity::is_outgrown() const {
  return std::ranges::any_of(routed_, [&](SymbolId s) { return seen_[s] > capacity_[s]; });
}

void RowCapacity::grow() {
  for (SymbolId symbol : routed_) {
    if (seen_[symbol] > capacity_[symbol] || capacity_[symbol] == 0) {
      capacity_[symbol] = with_room(seen_[symbol]);
    }
  }
}

void RowCapacity::forget() {
  std::ranges::fill(seen_, 0);
  std::ranges::fill(capacity_, 0);
}

bool RowCapacity::fits(std::span<const SymbolId> symbols) const {
  return std::ranges::all_of(symbols, [&](SymbolId symbol) {
    return sizes_.bound(symbol) && sizes_.of({.size = 1, .symbol = symbol}) <= capacity_[symbol];
  });
}

}  // namespace farskip
