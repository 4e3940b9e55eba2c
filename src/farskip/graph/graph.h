#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "farskip/base/lane.h"
#include "farskip/model/packet.h"
#include "farskip/model/router_losses.h"

namespace farskip {

using OpId = int32_t;
using ValueId = int32_t;
using SymbolId = int32_t;
inline constexpr int32_t none = -1;

enum class DType { float32, bfloat16, float16, float8_e4m3, int32, int64, uint8, float64 };
int64_t bytes_of(DType dtype);
const char* to_string(DType dtype);

// A size that is known only at run time. Graphs hold symbols, so that one graph serves every rank
// whatever its batch and routing; the runtime binds them, costs use the expected value.
struct Symbol {
  enum class Kind {
    tokens,         // rows of a micro-batch on this rank; bound when the step starts
    sequences,      // sequences of a micro-batch; bound when the step starts
    part,           // rows of part `part` of `parts` of another symbol; bound with it
    local_experts,  // experts of one chunk on this rank; bound by the placement
    // Rows of one expert chunk; bound by counts.
    sent_rows,      // that this rank dispatches
    received_rows,  // that this rank receives
    expert_rows,    // per-rank dispatch: that this rank's experts compute
    returned_rows,  // per-rank dispatch: that this rank sends back
    home_rows,      // per-rank dispatch: that come back to this rank
  };
  Kind kind = Kind::tokens;
  std::string name;
  int micro_batch = 0, layer = 0;
  int chunk = 0, chunks = 1;
  int part = 0, parts = 1;
  bool by_sequences = false;  // parts are cut between sequences, not between any two rows
  SymbolId whole = none;      // kind part: what it is a part of
  double expected = 0;
  double bound = 0;  // never more than this
};
// Whether routing decides the size, so that a counts op binds it.
bool is_routed(Symbol::Kind kind);

// size, or size x symbol.
struct Dim {
  int64_t size = 0;
  SymbolId symbol = none;
  bool exact() const { return symbol == none; }
  bool operator==(const Dim&) const = default;
};

enum class ValueKind { input, activation, parameter, gradient };

// One tensor of the step. Activations have one producer, other values none.
struct Value {
  ValueId id = none;
  ValueKind kind = ValueKind::activation;
  // Parameters and their gradients: the canonical weight name, e.g. "layer.3.router".
  std::string name;
  DType dtype = DType::float32;
  std::vector<Dim> shape;
  OpId producer = none;
  // A part lies inside another value, behind the parts listed before it in that value's join op.
  ValueId part_of = none;
  // Parameters and gradients: bound at run time, experts [first, last) of `chunks` even cuts of the
  // first axis.
  int chunk = 0, chunks = 1;
};

enum class OpKind {
  embedding,          // input_ids, table -> rows
  rope_tables,        // positions -> cosines, sines
  sum,                // terms -> their sum, left to right, each rounded to the stream's dtype
  norm,               // rows, weight -> rows
  sum_norm,           // terms, weight -> [their sum,] the norm of it
  attention_prepare,  // normed rows, cosines, sines, weights -> q, k, v
  attention_core,     // q, k, v -> per-head outputs
  output_projection,  // per-head outputs, weight -> rows
  router,             // normed rows, weight [, bias] -> chosen experts, routing weights
  plan,               // chosen experts -> row order, its inverse, rows per expert or rank
  counts,             // rows to every expert or rank -> rows from every rank (all-to-all)
  permute,            // normed rows, order, counts -> rows or packets to send
  dispatch,           // rows or packets to send -> received ones (all-to-all)
  arrange,            // received packets -> rows by expert; per-rank: and where each lies
  experts,            // received rows, weights -> expert outputs; fused: of rows not yet permuted
  weigh,              // per-rank: where rows lie, weights, expert outputs -> a sum a received row
  combine,            // expert outputs or sums -> rows back at their tokens' home (all-to-all)
  unpermute,          // rows, inverse order [, routing weights] -> routed output
  shared_experts,     // normed rows, weights -> rows
  dense_mlp,          // normed rows, weights -> rows
  join,               // parts -> the whole they lie in; no work
  all_reduce,         // partial rows -> summed rows
  expert_loads,       // chosen experts of every router -> tokens of each expert
  final_norm,         // rows, weight -> rows
  head,               // rows, weight -> logits
  loss,               // logits, labels, label count -> this rank's share of the loss
  // Backward, see differentiate.h. d: the gradient of the loss by the value named.
  loss_gradient,               // logits, labels, label count, saved -> d logits
  linear_gradient,             // d rows out, weight -> d rows in
  norm_gradient,               // d normed rows, rows, weight -> d rows
  attention_prepare_gradient,  // d q, k, v, cosines, sines, saved, weights -> d rows, deltas
  attention_core_gradient,     // d outputs, q, k, v, outputs, saved -> d q, k, v
  mlp_gradient,                // d rows out, saved, weights -> d rows in, deltas, activated
  experts_gradient,            // the same, with rows per expert
  router_loss,         // saved logits, chosen, label count [, expert loads] -> d logits, losses
  router_gradient,     // d routing weights, chosen, saved, weight [, more d logits] -> d rows, d
                       // logits
  unpermute_gradient,  // d routed output, inverse order, weights -> d rows
  routing_weights_gradient,  // d routed output, rows, inverse order -> d routing weights
  permute_gradient,          // d rows to send, inverse order -> d normed rows
  combine_gradient,          // d combined rows, counts -> d expert rows (all-to-all)
  dispatch_gradient,         // d received rows, counts -> d rows to send (all-to-all)
  // These add to the gradients of parameters.
  linear_weight_gradient,             // d rows out, rows in
  norm_weight_gradient,               // d normed rows, rows
  attention_prepare_weight_gradient,  // rows in, deltas, saved, norms
  experts_weight_gradient,            // rows in, deltas, activated, d rows out, rows per expert
  embedding_gradient,                 // d embedding rows, input_ids
  // Of a forward op that is computed again, only what its gradient needs: see recompute.h.
  mlp_products,      // normed rows, gate and up -> their products
  experts_products,  // received rows, rows per expert, gate and up -> their products
  // Update, see update.h.
  reduce_gradients,   // gradients of a bucket -> this rank's part of their sum (reduce-scatter)
  gradient_norm,      // parts, gradients -> the sum of their squares
  update,             // a part or gradients, the sum of squares -> a part of new parameters
  gather_parameters,  // parts of new parameters -> the parameters of a bucket (all-gather)
  // The same for experts, among the ranks that have the same ones.
  exchange_gradients,  // gradients of a bucket -> each such rank's idea of this rank's part
  sum_gradients,       // those -> their sum
  spread_parameters,   // parts of new parameters -> the parameters of a bucket
  // Between pipeline stages, see pipeline.h.
  send,     // a value that another stage reads ->
  receive,  // -> it
};
// Of the backward pass: it carries gradients, or makes once more what they need.
inline bool is_backward(OpKind kind) {
  return OpKind::loss_gradient <= kind && kind <= OpKind::experts_products;
}
inline constexpr int op_kind_count = static_cast<int>(OpKind::receive) + 1;
const char* to_string(OpKind kind);
bool is_communication(OpKind kind);
// Whether only ranks that share out the experts take part: of several such sets, each on its own.
bool is_among_experts(OpKind kind);
// Whether rows go from their tokens' rank to their experts', as in dispatch; and the way back.
bool goes_to_experts(OpKind kind);
bool comes_home(OpKind kind);

enum class DispatchForm { per_expert, per_rank };
enum class RoutingMode { model, balanced, replay };
const char* to_string(DispatchForm form);
const char* to_string(RoutingMode mode);

// What a kernel, the cost model or a rewrite needs to know of an op beyond its values.
struct Attributes {
  int layer = 0;  // from 1; 0: outside the layers
  int micro_batch = 0;
  int chunk = 0, chunks = 1;  // expert chunks
  int piece = 0, pieces = 1;  // cuts of a large op by rows or sequences
  int bucket = 0;             // of parameters
  bool again = false;         // computes again what the forward pass computed
  RoutingMode routing = RoutingMode::model;
  DispatchForm dispatch = DispatchForm::per_expert;
  // communication: how rows spread over ranks.
  int ranks = 1;
  DType wire = DType::float32;  // dtype on the wire; float8_e4m3 carries a scale per 128 values
  // Communication between pipeline stages: how many there are; send and receive: the other one, and
  // the message's number among those of the step, the same at both ends.
  int stages = 1, peer = 0, message = 0;
  int experts = 0, top_k = 0, groups = 1, kept_groups = 1;
  int router = 0;              // routers: how many there are in the layers before, on this stage
  RouterLosses router_losses;  // routers: added to the loss that gradients are of
  double context = 0;          // attention_core: mean sequence length; a query sees half of it
  int heads = 0, qk_head_dim = 0, value_head_dim = 0;
  bool operator==(const Attributes&) const = default;
};

// Whether rows are dispatched as packets: in FP8, or with experts and weights beside them. How a
// row of `width` values lies in one.
bool sends_packets(const Attributes& attributes);
PacketLayout packet_layout(const Attributes& attributes, int64_t width);
// Whether the same ranks of all stages take part, not the ranks of one.
inline bool is_between_stages(const Attributes& attributes) { return attributes.stages > 1; }

struct Op {
  OpId id = none;
  OpKind kind = OpKind::sum;
  Attributes attributes;
  std::vector<ValueId> inputs, outputs;
  // Gradients that the op adds to. Ops add to one gradient in program order, and ops that read it
  // come after all that are listed before them.
  std::vector<ValueId> accumulates;
  std::vector<OpId> order_after;  // must run after these though no value says so
  Lane lane = Lane::compute;
  bool host_waits = false;  // binds symbols: the host needs its result before it can go on
};

// One step of one rank. Immutable: rewrites return a new graph. Ops are stored in an order in
// which producers come before consumers (the program order).
class Graph {
 public:
  std::span<const Op> ops() const { return ops_; }
  std::span<const Value> values() const { return values_; }
  std::span<const Symbol> symbols() const { return symbols_; }
  const Op& op(OpId id) const { return ops_.at(id); }
  const Value& value(ValueId id) const { return values_.at(id); }
  const Symbol& symbol(SymbolId id) const { return symbols_.at(id); }

  // Ops that read the value, ascending.
  std::span<const OpId> consumers(ValueId id) const { return consumers_.at(id); }
  // Ops that must finish before this one: producers of its inputs, order_after, and the ops that
  // bind the symbols of its shapes. Ascending, without repeats.
  std::span<const OpId> predecessors(OpId id) const { return predecessors_.at(id); }
  std::span<const OpId> successors(OpId id) const { return successors_.at(id); }
  // The op whose result binds the symbol (a counts op), or none.
  OpId binder(SymbolId id) const { return binders_.at(id); }
  // Values that leave the step (logits), in the order they were declared.
  std::span<const ValueId> outputs() const { return outputs_; }
  int micro_batches() const { return micro_batches_; }
  // True if every rewrite so far keeps bits: the graph computes what the unrewritten one does.
  bool keeps_bits() const { return keeps_bits_; }
  const std::string& description() const { return description_; }  // e.g. "farskip, chunks 4"

  double expected(const Dim& dim) const;
  double expected_elements(ValueId id) const;
  double expected_bytes(ValueId id) const;
  double bound_bytes(ValueId id) const;

  // Of structure, attributes and exact sizes; not of expected values. Equal on every rank.
  uint64_t hash() const { return hash_; }

 private:
  friend class GraphBuilder;
  std::vector<Op> ops_;
  std::vector<Value> values_;
  std::vector<Symbol> symbols_;
  std::vector<std::vector<OpId>> consumers_, predecessors_, successors_;
  std::vector<OpId> binders_;
  std::vector<ValueId> outputs_;
  int micro_batches_ = 1;
  bool keeps_bits_ = true;
  std::string description_;
  uint64_t hash_ = 0;
};

// Puts a graph together. Single use: finish() moves the graph out.
class GraphBuilder {
 public:
  SymbolId add_symbol(Symbol symbol);
  ValueId add_value(Value value);  // id and producer are set here
  // Inputs must exist; outputs must have no producer yet. Communication kinds go to the
  // communication lane. Throws GraphError.
  OpId add_op(OpKind kind, Attributes attributes, std::vector<ValueId> inputs,
              std::vector<ValueId> outputs, std::vector<OpId> order_after = {});
  // The op adds to these gradients. Throws GraphError for a value of another kind.
  void set_accumulates(OpId op, std::vector<ValueId> gradients);
  // The host needs the op's result to go on; it binds the row symbols of its layer.
  void set_host_waits(OpId op) { graph_.ops_.at(op).host_waits = true; }
  void set_part_of(ValueId part, ValueId whole) { graph_.values_.at(part).part_of = whole; }
  void add_output(ValueId value);
  void set_micro_batches(int count) { graph_.micro_batches_ = count; }
  void set_keeps_bits(bool keeps) { graph_.keeps_bits_ = keeps; }
  void set_description(std::string text) { graph_.description_ = std::move(text); }

  const Op& op(OpId id) const { return graph_.ops_.at(id); }
  const Value& value(ValueId id) const { return graph_.values_.at(id); }
  const Symbol& symbol(SymbolId id) const { return graph_.symbols_.at(id); }
  std::span<const Symbol> symbols() const { return graph_.symbols_; }
  int op_count() const { return static_cast<int>(graph_.ops_.size()); }

  // Derives consumers, predecessors and the hash, and checks the invariants: every activation has
  // a producer, parts add up to a join, symbols of a shape are bound by something that can run
  // before. Throws GraphError.
  Graph finish();

 private:
  void link_symbols();
  void link_ops();
  void check() const;
  Graph graph_;
};

}  // namespace farskip
