#include "farskip/graph/build_routed.h"

#include <algorithm>
#include <span>

#include "farskip/model/routing_statistics.h"

namespace farskip {
namespace {

class RoutedBuilder {
 public:
  explicit RoutedBuilder(StepValues& step)
      : step_(step), model_(step.model), spec_(step.spec), builder_(step.builder) {}

  ValueId add(int layer, ValueId in) {
    const Routing routing = add_router(layer, in);
    return step_.replicated() ? add_local_experts(layer, in, routing)
           : step_.alone()    ? add_own_experts(layer, in, routing)
                              : add_exchanged_experts(layer, in, routing);
  }

 private:
  Attributes routing_attributes(int layer) const {
    const RouterConfig& router = model_.router;
    Attributes a = step_.at(layer);
    a.routing = spec_.routing;
    a.dispatch = step_.per_rank() ? DispatchForm::per_rank : DispatchForm::per_expert;
    a.wire = step_.exchanges() ? spec_.wire : spec_.dtype;
    a.experts = router.experts;
    a.top_k = router.top_k;
    a.groups = router.groups;
    a.kept_groups = router.kept_groups;
    return a;
  }

  Attributes router_attributes(int layer) const {
    Attributes a = routing_attributes(layer);
    const auto before = std::span(model_.layers).first(static_cast<size_t>(layer - 1));
    a.router = static_cast<int>(std::ranges::count_if(before, &LayerKind::routed));
    a.router_losses = spec_.router_losses;
    return a;
  }

  // Rows that leave this rank in a dispatch, its own included, for each of its tokens.
  double rows_per_token() const {
    const RouterConfig& r = model_.router;
    const double real = static_cast<double>(r.experts) / (r.experts + r.zero_experts);
    if (spec_.dispatch == DispatchForm::per_expert) return r.top_k * real;
    const bool grouped = spec_.routing == RoutingMode::model && r.groups > 1;
    return grouped
               ? distinct_ranks_grouped(r.experts, r.top_k, spec_.ranks, r.groups, r.kept_groups)
               : distinct_ranks(r.experts, r.top_k, spec_.ranks);
  }

  SymbolId row_symbol(Symbol::Kind kind, const char* name, int layer, double expected) {
    const bool own = kind == Symbol::Kind::sent_rows || kind == Symbol::Kind::home_rows;
    const double bound = spec_.tokens * model_.router.top_k * (own ? 1 : spec_.ranks);
    return builder_.add_symbol(
        {.kind = kind, .name = name, .layer = layer, .expected = expected, .bound = bound});
  }

  struct Routing {
    ValueId chosen, weights, order, inverse, counts;
    OpId plan;
  };

  Routing add_router(int layer, ValueId in) {
    const RouterConfig& r = model_.router;
    const int64_t choices = r.experts + r.zero_experts;
    const Attributes attributes = routing_attributes(layer);
    std::vector<ValueId> inputs = {
        in, step_.parameter(StepValues::weight(layer, "router"), {choices, model_.hidden})};
    if (r.correction_bias) {
      inputs.push_back(
          step_.parameter(StepValues::weight(layer, "router_bias"), {choices}, DType::float32));
    }
    Routing out{};
    out.chosen = builder_.add_value(step_.rows("chosen experts", {r.top_k}, DType::int64));
    out.weights = builder_.add_value(step_.rows("routing weights", {r.top_k}, DType::float32));
    builder_.add_op(OpKind::router, router_attributes(layer), inputs, {out.chosen, out.weights});
    auto slots = [&](const char* name) {
      return builder_.add_value(
          {.name = name, .dtype = DType::int64, .shape = {{r.top_k, step_.tokens}}});
    };
    out.order = slots("row order");
    out.inverse = slots("inverse order");
    const auto to_rank = counts_per_rank();
    out.counts =
        step_.per_rank()
            ? builder_.add_value({.name = "rows per rank", .dtype = DType::int64, .shape = to_rank})
            : builder_.add_value(
                  {.name = "rows per expert", .dtype = DType::int64, .shape = {{r.experts}}});
    out.plan = builder_.add_op(OpKind::plan, attributes, {out.chosen},
                               {out.order, out.inverse, out.counts});
    return out;
  }

  std::pair<ValueId, ValueId> expert_weights(int layer) {
    auto stack = [&](const char* name, int64_t out, int64_t in) {
      return builder_.add_value({.kind = ValueKind::parameter,
                                 .name = StepValues::weight(layer, name),
                                 .dtype = spec_.dtype,
                                 .shape = {{1, step_.local_experts}, {out}, {in}}});
    };
    const int64_t width = model_.mlp.expert_width;
    return {stack("experts.gate_up", 2 * width, model_.hidden),
            stack("experts.down", model_.hidden, width)};
  }

  ValueId add_row_value(const char* name, SymbolId symbol) {
    return builder_.add_value(
        {.name = name, .dtype = spec_.dtype, .shape = {{1, symbol}, {model_.hidden}}});
  }

  // Rows as they travel.
  ValueId add_moving_rows(const char* name, Dim rows, const Attributes& attributes) {
    if (!sends_packets(attributes)) {
      return builder_.add_value(
          {.name = name, .dtype = spec_.dtype, .shape = {rows, {model_.hidden}}});
    }
    const int64_t bytes = packet_layout(attributes, model_.hidden).bytes();
    return builder_.add_value({.name = name, .dtype = DType::uint8, .shape = {rows, {bytes}}});
  }

  // Rows that are dispatched to a rank, that return from it, and that its experts compute.
  std::vector<Dim> counts_per_rank() const { return {{spec_.ranks}, {3}}; }

  ValueId add_counts(int layer, const Routing& routing) {
    Value received{.name = "received rows per expert",
                   .dtype = DType::int64,
                   .shape = {{spec_.ranks}, {1, step_.local_experts}}};
    if (step_.per_rank()) {
      received.name = "rows per rank of every rank";
      received.shape = counts_per_rank();
    }
    const ValueId id = builder_.add_value(received);
    builder_.add_op(OpKind::counts, routing_attributes(layer), {routing.counts}, {id});
    return id;
  }

  ValueId add_exchanged_experts(int layer, ValueId in, const Routing& routing) {
    const Attributes attributes = routing_attributes(layer);
    const double sent = rows_per_token() * spec_.tokens;
    const SymbolId sent_rows = row_symbol(Symbol::Kind::sent_rows, "sent rows", layer, sent);
    const SymbolId received_rows =
        row_symbol(Symbol::Kind::received_rows, "received rows", layer, sent * spec_.imbalance);
    const ValueId received_counts = add_counts(layer, routing);
    const Dim to_send =
        step_.per_rank() ? Dim{1, sent_rows} : Dim{model_.router.top_k, step_.tokens};
    const ValueId permuted = add_moving_rows("rows to send", to_send, attributes);
    // Plain rows are written from tokens that are read once; packets are packed row by row.
    const ValueId rows_or_slots = sends_packets(attributes) ? routing.order : routing.inverse;
    std::vector<ValueId> inputs = {in, rows_or_slots, routing.counts};
    if (step_.per_rank()) inputs.insert(inputs.end(), {routing.chosen, routing.weights});
    builder_.add_op(OpKind::permute, attributes, inputs, {permuted});
    const ValueId received = add_moving_rows("received rows", {1, received_rows}, attributes);
    builder_.add_op(OpKind::dispatch, attributes, {permuted, routing.counts, received_counts},
                    {received});
    const ValueId computed = step_.per_rank()
                                 ? add_summed_experts(layer, received, received_counts)
                                 : add_experts(layer, received, received_counts, received_rows);
    const SymbolId home_rows = step_.per_rank()
                                   ? row_symbol(Symbol::Kind::home_rows, "home rows", layer, sent)
                                   : sent_rows;
    const ValueId combined = add_row_value("combined rows", home_rows);
    builder_.add_op(OpKind::combine, attributes, {computed, routing.counts, received_counts},
                    {combined});
    const ValueId routed = step_.add_rows("routed output", {model_.hidden});
    inputs = {combined, routing.inverse};
    if (!step_.per_rank()) inputs.push_back(routing.weights);  // else they were weighed already
    builder_.add_op(OpKind::unpermute, attributes, inputs, {routed});
    return routed;
  }

  // Per-expert dispatch: a row goes back for every row received.
  ValueId add_experts(int layer, ValueId received, ValueId received_counts,
                      SymbolId received_rows) {
    const Attributes attributes = routing_attributes(layer);
    ValueId expert_rows = received;
    if (sends_packets(attributes)) {
      expert_rows = add_row_value("unpacked rows", received_rows);
      builder_.add_op(OpKind::arrange, attributes, {received_counts, received}, {expert_rows});
    }
    const auto [gate_up, down] = expert_weights(layer);
    const ValueId computed = add_row_value("expert rows", received_rows);
    builder_.add_op(OpKind::experts, attributes, {expert_rows, received_counts, gate_up, down},
                    {computed});
    return computed;
  }

  // Per-rank dispatch: what several experts make of a row is summed before it goes back.
  ValueId add_summed_experts(int layer, ValueId received, ValueId received_counts) {
    const RouterConfig& r = model_.router;
    const Attributes attributes = routing_attributes(layer);
    const double real = static_cast<double>(r.experts) / (r.experts + r.zero_experts);
    const double computed_rows = r.top_k * real * spec_.tokens * spec_.imbalance;
    const SymbolId expert_rows =
        row_symbol(Symbol::Kind::expert_rows, "expert rows", layer, computed_rows);
    const SymbolId returned_rows = row_symbol(Symbol::Kind::returned_rows, "returned rows", layer,
                                              rows_per_token() * spec_.tokens * spec_.imbalance);
    const ValueId arranged = add_row_value("rows by expert", expert_rows);
    const ValueId counts = builder_.add_value({.name = "rows per local expert",
                                               .dtype = DType::int64,
                                               .shape = {{1, step_.local_experts}}});
    const ValueId places = builder_.add_value(
        {.name = "places", .dtype = DType::int64, .shape = {{r.top_k, returned_rows}}});
    const ValueId weights = builder_.add_value({.name = "weights of places",
                                                .dtype = DType::float32,
                                                .shape = {{1, returned_rows}, {r.top_k}}});
    builder_.add_op(OpKind::arrange, attributes, {received_counts, received},
                    {arranged, counts, places, weights});
    const auto [gate_up, down] = expert_weights(layer);
    const ValueId computed = add_row_value("expert rows", expert_rows);
    builder_.add_op(OpKind::experts, attributes, {arranged, counts, gate_up, down}, {computed});
    const ValueId summed = add_row_value("summed rows", returned_rows);
    builder_.add_op(OpKind::weigh, attributes, {places, weights, computed}, {summed});
    return summed;
  }

  // One rank has all experts: rows go nowhere, and the host need not learn how they spread.
  ValueId add_own_experts(int layer, ValueId in, const Routing& routing) {
    const Attributes attributes = routing_attributes(layer);
    auto slots = [&](const char* name) {
      return builder_.add_value({.name = name,
                                 .dtype = spec_.dtype,
                                 .shape = {{model_.router.top_k, step_.tokens}, {model_.hidden}}});
    };
    const ValueId permuted = slots("permuted rows");
    builder_.add_op(OpKind::permute, attributes, {in, routing.inverse, routing.counts}, {permuted});
    const auto [gate_up, down] = expert_weights(layer);
    const ValueId computed = slots("expert rows");
    builder_.add_op(OpKind::experts, attributes, {permuted, routing.counts, gate_up, down},
                    {computed});
    const ValueId routed = step_.add_rows("routed output", {model_.hidden});
    builder_.add_op(OpKind::unpermute, attributes, {computed, routing.inverse, routing.weights},
                    {routed});
    return routed;
  }

  ValueId add_local_experts(int layer, ValueId in, const Routing& routing) {
    const Attributes attributes = routing_attributes(layer);
    const double mine = model_.router.top_k * spec_.tokens / spec_.ranks * spec_.imbalance;
    const SymbolId rows_here =
        row_symbol(Symbol::Kind::received_rows, "received rows", layer, mine);
    builder_.set_host_waits(routing.plan);
    const ValueId permuted = add_row_value("local rows", rows_here);
    builder_.add_op(OpKind::permute, attributes, {in, routing.order, routing.counts}, {permuted});
    const auto [gate_up, down] = expert_weights(layer);
    const ValueId computed = add_row_value("expert rows", rows_here);
    builder_.add_op(OpKind::experts, attributes, {permuted, routing.counts, gate_up, down},
                    {computed});
    const ValueId routed = step_.add_rows("partial routed output", {model_.hidden});
    builder_.add_op(OpKind::unpermute, attributes, {computed, routing.inverse, routing.weights},
                    {routed});
    return routed;
  }

  StepValues& step_;
  const ModelConfig& model_;
  const StepSpec& spec_;
  GraphBuilder& builder_;
};

}  // namespace

ValueId add_routed_experts(StepValues& step, int layer, ValueId in) {
  return RoutedBuilder(step).add(layer, in);
}

}  // namespace farskip
