#include "farskip/runtime/sizes.h"

#include <algorithm>
#include <numeric>
#include <string>

#include "farskip/base/error.h"

namespace farskip {

Range even_cut(int64_t n, int part, int parts) {
  return {part * n / parts, (part + 1) * n / parts};
}

Range cut_rows(int64_t rows, int part, int parts) {
  const int64_t used = std::clamp<int64_t>(rows / least_part_rows, 1, parts);
  const int64_t base = rows / used, longer = rows % used;
  auto begin = [&](int64_t p) { return std::min(rows, p * base + std::min(p, longer)); };
  return {begin(part), part + 1 < used ? begin(part + 1) : rows};
}

Range cut_sequences(std::span<const int64_t> lengths, int part, int parts) {
  const int64_t count = static_cast<int64_t>(lengths.size());
  const int64_t tokens = std::accumulate(lengths.begin(), lengths.end(), int64_t{0});
  auto end_of = [&](int p) {
    if (p == parts) return count;
    int64_t end = 0, sum = 0;
    while (end < count && sum * parts < tokens * p) sum += lengths[end++];
    return end;
  };
  return {end_of(part), end_of(part + 1)};
}

Range micro_batch_sequences(int64_t sequences, int micro_batch, int micro_batches) {
  auto begin = [&](int64_t m) { return (m * sequences + micro_batches - 1) / micro_batches; };
  return {begin(micro_batch), begin(micro_batch + 1)};
}

Sizes::Sizes(const Graph& graph, const Placement& placement, int rank)
    : graph_(graph),
      local_experts_(static_cast<int64_t>(placement.experts_of(rank).size())),
      sizes_(graph.symbols().size(), -1),
      offsets_(graph.symbols().size(), 0),
      part_lengths_(graph.symbols().size()),
      first_tokens_(graph.micro_batches() + 1, 0),
      lengths_(graph.micro_batches()) {
  for (const Symbol& symbol : graph.symbols()) {
    if (symbol.kind == Symbol::Kind::part &&
        graph.symbol(symbol.whole).kind != Symbol::Kind::tokens) {
      throw GraphError("only tokens can be cut into parts", {.where = "symbol " + symbol.name});
    }
  }
  for (size_t id = 0; id < sizes_.size(); ++id) {
    const Symbol& symbol = graph.symbols()[id];
    if (symbol.kind == Symbol::Kind::local_experts) {
      sizes_[id] = even_cut(local_experts_, symbol.chunk, symbol.chunks).size();
    }
  }
}

void Sizes::start(const std::vector<int64_t>& lengths) {
  for (int64_t length : lengths) {
    if (length < 1) {
      throw Error(
          "a sequence without tokens",
          {.where = "batch lengths", .expected = "1 or more", .found = std::to_string(length)});
    }
  }
  const int micro_batches = graph_.micro_batches();
  for (int m = 0; m < micro_batches; ++m) {
    const Range range =
        micro_batch_sequences(static_cast<int64_t>(lengths.size()), m, micro_batches);
    lengths_[m].assign(lengths.begin() + range.first, lengths.begin() + range.last);
    first_tokens_[m + 1] =
        std::accumulate(lengths_[m].begin(), lengths_[m].end(), first_tokens_[m]);
  }
  for (size_t i = 0; i < sizes_.size(); ++i) {
    const SymbolId id = static_cast<SymbolId>(i);
    const Symbol& symbol = graph_.symbols()[i];
    switch (symbol.kind) {
      case Symbol::Kind::tokens:
        sizes_[i] = tokens(symbol.micro_batch);
        break;
      case Symbol::Kind::sequences:
        sizes_[i] = static_cast<int64_t>(lengths_[symbol.micro_batch].size());
        break;
      case Symbol::Kind::part:
        bind_part(id, symbol);
        break;
      case Symbol::Kind::local_experts:
        break;
      case Symbol::Kind::sent_rows:
      case Symbol::Kind::received_rows:
      case Symbol::Kind::expert_rows:
      case Symbol::Kind::returned_rows:
      case Symbol::Kind::home_rows:
        sizes_[i] = -1;
        break;
    }
  }
}

void Sizes::bind_part(SymbolId id, const Symbol& symbol) {
  if (!symbol.by_sequences) {
    const Range range = cut_rows(tokens(symbol.micro_batch), symbol.part, symbol.parts);
    offsets_[id] = range.first;
    sizes_[id] = range.size();
    return;
  }
  const std::vector<int64_t>& all = lengths_[symbol.micro_batch];
  const Range range = cut_sequences(all, symbol.part, symbol.parts);
  part_lengths_[id].assign(all.begin() + range.first, all.begin() + range.last);
  offsets_[id] = std::accumulate(all.begin(), all.begin() + range.first, int64_t{0});
  sizes_[id] = std::accumulate(part_lengths_[id].begin(), part_lengths_[id].end(), int64_t{0});
}

void Sizes::bind(SymbolId symbol, int64_t size) { sizes_.at(symbol) = size; }

int64_t Sizes::of(const Dim& dim) const {
  if (dim.exact()) return dim.size;
  const int64_t size = sizes_[dim.symbol];
  if (size < 0) fail_unbound(dim.symbol);
  return dim.size * size;
}

void Sizes::fail_unbound(SymbolId id) const {
  const Symbol& symbol = graph_.symbol(id);
  throw GraphError(
      "a size is needed before anything has bound it",
      {.where = "symbol " + symbol.name + " of layer " + std::to_string(symbol.layer)});
}

}  // namespace farskip
