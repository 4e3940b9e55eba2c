#include "farskip/graph/residual.h"

#include <algorithm>

namespace farskip {
namespace {

constexpr Reader readers[] = {Reader::attention, Reader::moe, Reader::shared};

std::vector<Contribution> all_contributions(const LayerKinds& layers) {
  std::vector<Contribution> all;
  for (int layer = 1; layer <= static_cast<int>(layers.size()); ++layer) {
    all.push_back({layer, Source::attention});
    if (layers[layer - 1].shared) all.push_back({layer, Source::shared});
    if (layers[layer - 1].routed) all.push_back({layer, Source::routed});
  }
  return all;
}

bool reads(const LayerKind& kind, Reader reader) {
  if (reader == Reader::moe) return kind.routed;
  if (reader == Reader::shared) return kind.shared;
  return true;
}

}  // namespace

ResidualStream::ResidualStream(const Connectivity& connectivity)
    : connectivity_(connectivity),
      everything_(all_contributions(connectivity.layers())),
      nodes_(1) {
  nodes_[0].stored = true;
  for (int layer = 1; layer <= connectivity.layer_count(); ++layer) {
    for (Reader reader : readers) {
      if (reads(connectivity.layers()[layer - 1], reader)) plan(connectivity.seen(layer, reader));
    }
  }
  plan(everything_);
  for (Node& node : nodes_) node.stored |= node.children.size() > 1;
}

void ResidualStream::plan(const std::vector<Contribution>& seen) {
  int at = 0;
  for (const Contribution& term : seen) {
    const auto found = nodes_[at].children.find(term);
    if (found != nodes_[at].children.end()) {
      at = found->second;
      continue;
    }
    const int next = static_cast<int>(nodes_.size());
    nodes_[at].children[term] = next;
    nodes_.push_back({.parent = at, .term = term, .children = {}});
    at = next;
  }
  nodes_[at].stored = true;
}

int ResidualStream::find(const std::vector<Contribution>& seen) const {
  int at = 0;
  for (const Contribution& term : seen) at = nodes_[at].children.at(term);
  return at;
}

ValueId ResidualStream::materialize(GraphBuilder& builder, const Value& like, int node, int layer) {
  if (nodes_[node].value != none) return nodes_[node].value;
  std::vector<ValueId> terms;
  int at = node;
  do {
    terms.push_back(contributions_.at(nodes_[at].term));
    at = nodes_[at].parent;
  } while (!nodes_[at].stored);
  terms.push_back(materialize(builder, like, at, layer));
  std::reverse(terms.begin(), terms.end());
  Value sum = like;
  sum.name = "residual";
  const ValueId out = builder.add_value(sum);
  builder.add_op(OpKind::sum, {.layer = layer}, terms, {out});
  nodes_[node].value = out;
  return out;
}

ValueId ResidualStream::read(GraphBuilder& builder, const Value& like, int layer, Reader reader) {
  return materialize(builder, like, find(connectivity_.seen(layer, reader)), layer);
}

ValueId ResidualStream::read_final(GraphBuilder& builder, const Value& like) {
  return materialize(builder, like, find(everything_), 0);
}

}  // namespace farskip
