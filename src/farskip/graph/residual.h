#pragma once

#include <map>
#include <vector>

#include "farskip/graph/graph.h"
#include "farskip/model/connectivity.h"

namespace farskip {

// Builds the inputs of all readers of the residual stream: each is the sum, left to right, of the
// embedding and the contributions that the reader sees. Prefixes that several readers share are
// stored once; nothing is ever subtracted.
class ResidualStream {
 public:
  // Plans the stored sums for every reader of the connectivity and for the final norm.
  explicit ResidualStream(const Connectivity& connectivity);

  void set_embedding(ValueId value) { nodes_[0].value = value; }
  void set_contribution(Contribution contribution, ValueId value) {
    contributions_[contribution] = value;
  }

  // The value that the reader reads; adds the sum ops that are still missing.
  ValueId read(GraphBuilder& builder, const Value& like, int layer, Reader reader);
  ValueId read_final(GraphBuilder& builder, const Value& like);

 private:
  struct Node {
    int parent = none;
    Contribution term;
    std::map<Contribution, int> children;
    bool stored = false;
    ValueId value = none;
  };
  void plan(const std::vector<Contribution>& seen);
  int find(const std::vector<Contribution>& seen) const;
  ValueId materialize(GraphBuilder& builder, const Value& like, int node, int layer);

  const Connectivity& connectivity_;
  std::vector<Contribution> everything_;
  std::vector<Node> nodes_;  // a tree of prefixes; [0] is the embedding alone
  std::map<Contribution, ValueId> contributions_;
};

}  // namespace farskip
