#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "farskip/graph/graph.h"
#include "farskip/model/placement.h"

namespace farskip {

// [first, last)
struct Range {
  int64_t first = 0, last = 0;
  int64_t size() const { return last - first; }
  bool operator==(const Range&) const = default;
};

// Part `part` of `parts` even cuts of n, the longer ones spread out: [part n / parts, ...).
Range even_cut(int64_t n, int part, int parts);

// Rows of part `part` of `parts`: even, longer parts first, but none shorter than least_part_rows
// unless it is the only one; then there are fewer parts and the last ones are empty.
inline constexpr int64_t least_part_rows = 4;
Range cut_rows(int64_t rows, int part, int parts);

// Sequences of part `part` of `parts`: contiguous, ended where the tokens so far reach the part's
// even share.
Range cut_sequences(std::span<const int64_t> lengths, int part, int parts);

// Sequences of a rank's micro-batch: the first of two takes the odd one.
Range micro_batch_sequences(int64_t sequences, int micro_batch, int micro_batches);

// The symbols of one graph on one rank, bound. Sizes of a batch and of the placement are bound when
// a step starts, rows that routing decides as the step goes on. One thread.
class Sizes {
 public:
  // The graph must outlive this. Throws GraphError for a part of something other than tokens.
  Sizes(const Graph& graph, const Placement& placement, int rank);

  // Binds what follows from the sequences of this rank and unbinds the rest. Throws Error if a
  // length is not positive.
  void start(const std::vector<int64_t>& lengths);
  void bind(SymbolId symbol, int64_t size);

  bool bound(SymbolId symbol) const { return sizes_[symbol] >= 0; }
  // Throws GraphError for a symbol that is not bound yet.
  int64_t of(const Dim& dim) const;
  // The first row of a part symbol within its whole.
  int64_t offset(SymbolId part) const { return offsets_[part]; }

  int64_t first_token(int micro_batch) const { return first_tokens_[micro_batch]; }
  int64_t tokens(int micro_batch) const {
    return first_tokens_[micro_batch + 1] - first_token(micro_batch);
  }
  const std::vector<int64_t>& lengths(int micro_batch) const { return lengths_[micro_batch]; }
  // Of a part that is cut between sequences.
  const std::vector<int64_t>& lengths_of_part(SymbolId part) const { return part_lengths_[part]; }

 private:
  void bind_part(SymbolId id, const Symbol& symbol);
  [[noreturn]] void fail_unbound(SymbolId symbol) const;

  const Graph& graph_;
  int64_t local_experts_;
  std::vector<int64_t> sizes_, offsets_;            // by symbol
  std::vector<std::vector<int64_t>> part_lengths_;  // by symbol
  std::vector<int64_t> first_tokens_;               // by micro-batch, and the end
  std::vector<std::vector<int64_t>> lengths_;       // by micro-batch
};

}  // namespace farskip
