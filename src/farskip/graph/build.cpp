#include "farskip/graph/build.h"

#include <cmath>
#include <map>
#include <string>

#include "farskip/base/error.h"
#include "farskip/graph/residual.h"
#include "farskip/model/routing_statistics.h"

namespace farskip {
namespace {

void check_spec(const ModelConfig& model, const Connectivity& connectivity, const StepSpec& spec) {
  if (connectivity.layers() != model.layers) {
    throw GraphError("the connectivity is for another model",
                     {.where = "connectivity " + connectivity.name(),
                      .expected = std::to_string(model.layer_count()) + " layers of " + model.name,
                      .found = std::to_string(connectivity.layer_count()) + " layers"});
  }
  if (spec.ranks < 1 || (model.moe_layer_count() > 0 && model.router.experts < spec.ranks)) {
    throw GraphError("ranks do not fit the model",
                     {.where = "ranks",
                      .expected = "1 to " + std::to_string(model.router.experts) + " (experts)",
                      .found = std::to_string(spec.ranks)});
  }
  if (spec.wire != spec.dtype && spec.wire != DType::float8_e4m3) {
    throw GraphError("rows can not be sent in this dtype",
                     {.where = "wire",
                      .expected = std::string(to_string(spec.dtype)) + " or float8_e4m3",
                      .found = to_string(spec.wire)});
  }
  if (!(spec.tokens >= 0) || !(spec.sequences >= 0) || !(spec.imbalance >= 1)) {
    throw GraphError("sizes of the step make no sense",
                     {.expected = "tokens and sequences >= 0, imbalance >= 1"});
  }
}

// Builds one forward step. Member functions add one block each; build() is the order of a model.
class ForwardBuilder {
 public:
  ForwardBuilder(const ModelConfig& model, const Connectivity& connectivity, const StepSpec& spec)
      : model_(model), connectivity_(connectivity), spec_(spec), stream_(connectivity) {
    split_ = replicated() ? spec.ranks : 1;
    tokens_ = builder_.add_symbol({.kind = Symbol::Kind::tokens,
                                   .name = "tokens",
                                   .expected = spec.tokens,
                                   .bound = spec.tokens});
    sequences_ = builder_.add_symbol({.kind = Symbol::Kind::sequences,
                                      .name = "sequences",
                                      .expected = spec.sequences,
                                      .bound = spec.sequences});
    const double local = static_cast<double>(model.router.experts) / spec.ranks;
    local_experts_ = builder_.add_symbol({.kind = Symbol::Kind::local_experts,
                                          .name = "local experts",
                                          .expected = local,
                                          .bound = std::ceil(local)});
  }

  Graph build() {
    add_inputs();
    for (int layer = 1; layer <= model_.layer_count(); ++layer) {
      add_attention(layer);
      if (model_.layers[layer - 1].shared) add_shared(layer);
      if (model_.layers[layer - 1].routed) add_routed(layer);
    }
    add_head();
    builder_.set_description(connectivity_.name());
    return builder_.finish();
  }

 private:
  bool replicated() const { return spec_.form == ParallelForm::replicated_all_reduce; }
  // Zero experts get no rows, so how many there are is for counts to say.
  bool alone() const { return spec_.ranks == 1 && model_.router.zero_experts == 0; }
  bool exchanges() const { return !replicated() && !alone(); }
  bool per_rank() const { return exchanges() && spec_.dispatch == DispatchForm::per_rank; }
  int64_t share(int64_t size) const { return (size + split_ - 1) / split_; }
  Attributes at(int layer) const { return {.layer = layer, .ranks = spec_.ranks}; }

  Value rows(std::string name, std::vector<int64_t> widths, DType dtype) const {
    Value value{.name = std::move(name), .dtype = dtype, .shape = {{1, tokens_}}};
    for (int64_t width : widths) value.shape.push_back({width});
    return value;
  }
  ValueId add_rows(std::string name, std::vector<int64_t> widths) {
    return builder_.add_value(rows(std::move(name), std::move(widths), spec_.dtype));
  }
  Value stream_value() const { return rows("residual", {model_.hidden}, spec_.dtype); }

  ValueId parameter(const std::string& name, std::vector<int64_t> shape) {
    return parameter(name, std::move(shape), spec_.dtype);
  }
  ValueId parameter(const std::string& name, std::vector<int64_t> shape, DType dtype) {
    const auto found = parameters_.find(name);
    if (found != parameters_.end()) return found->second;
    Value value{.kind = ValueKind::parameter, .name = name, .dtype = dtype};
    for (int64_t size : shape) value.shape.push_back({size});
    return parameters_[name] = builder_.add_value(value);
  }
  static std::string weight(int layer, const std::string& name) {
    return "layer." + std::to_string(layer) + "." + name;
  }

  void add_inputs() {
    Value ids = rows("input_ids", {}, DType::int64),
          positions = rows("positions", {}, DType::int64);
    ids.kind = positions.kind = ValueKind::input;
    const ValueId input_ids = builder_.add_value(ids), position = builder_.add_value(positions);
    const ValueId table = parameter("embedding", {model_.vocabulary, model_.hidden});
    const ValueId embedding = add_rows("embedding rows", {model_.hidden});
    builder_.add_op(OpKind::embedding, at(0), {input_ids, table}, {embedding});
    stream_.set_embedding(embedding);
    const int64_t half = model_.rope.dims / 2;
    cosines_ = builder_.add_value(rows("cosines", {half}, DType::float32));
    sines_ = builder_.add_value(rows("sines", {half}, DType::float32));
    builder_.add_op(OpKind::rope_tables, at(0), {position}, {cosines_, sines_});
  }

  // The reader's input behind the norm of its block; computed once where readers agree.
  ValueId normed(int layer, Reader reader) {
    const ValueId input = stream_.read(builder_, stream_value(), layer, reader);
    const std::string name =
        weight(layer, reader == Reader::attention ? "attention_norm" : "mlp_norm");
    const auto key = std::make_pair(name, input);
    const auto found = norms_.find(key);
    if (found != norms_.end()) return found->second;
    const ValueId out = add_rows("normed", {model_.hidden});
    builder_.add_op(OpKind::norm, at(layer), {input, parameter(name, {model_.hidden})}, {out});
    return norms_[key] = out;
  }

  // Partial outputs of a replicated step are summed over the ranks; others are whole already.
  void contribute(int layer, Source source, ValueId value) {
    if (replicated() && spec_.ranks > 1) {
      const ValueId whole = add_rows("reduced", {model_.hidden});
      Attributes attributes = at(layer);
      attributes.wire = spec_.dtype;
      builder_.add_op(OpKind::all_reduce, attributes, {value}, {whole});
      value = whole;
    }
    stream_.set_contribution({layer, source}, value);
  }

  std::vector<ValueId> attention_weights(int layer) {
    const AttentionConfig& a = model_.attention;
    const int64_t heads = share(a.heads), hidden = model_.hidden;
    std::vector<ValueId> weights;
    auto add = [&](const char* name, std::vector<int64_t> shape) {
      weights.push_back(parameter(weight(layer, name), std::move(shape)));
    };
    if (a.kind == AttentionConfig::Kind::latent) {
      const int64_t q = a.q_lora_rank ? a.q_lora_rank : heads * a.qk_head_dim();
      add("attention.q_kv_a", {q + a.kv_lora_rank + a.qk_rope_head_dim, hidden});
      if (a.q_lora_rank) {
        add("attention.q_a_norm", {a.q_lora_rank});
        add("attention.q_b", {heads * a.qk_head_dim(), a.q_lora_rank});
      }
      add("attention.kv_a_norm", {a.kv_lora_rank});
      add("attention.kv_b", {heads * (a.qk_nope_head_dim + a.v_head_dim), a.kv_lora_rank});
    } else {
      add("attention.qkv", {(heads + 2 * share(a.kv_heads)) * a.head_dim, hidden});
      if (a.qk_norm == AttentionConfig::QkNorm::per_head) {
        add("attention.q_norm", {a.head_dim});
        add("attention.k_norm", {a.head_dim});
      } else if (a.qk_norm == AttentionConfig::QkNorm::all_heads) {
        add("attention.q_norm", {heads * a.head_dim});
        add("attention.k_norm", {share(a.kv_heads) * a.head_dim});
      }
    }
    if (a.output_gate) add("attention.gate", {heads * a.value_head_dim(), hidden});
    return weights;
  }

  void add_attention(int layer) {
    const AttentionConfig& a = model_.attention;
    const int64_t heads = share(a.heads);
    const bool latent = a.kind == AttentionConfig::Kind::latent;
    const int64_t kv_heads = latent ? heads : share(a.kv_heads);
    std::vector<ValueId> inputs = {normed(layer, Reader::attention), cosines_, sines_};
    for (ValueId id : attention_weights(layer)) inputs.push_back(id);
    const ValueId q = add_rows("q", {heads, a.qk_head_dim()});
    const ValueId k = add_rows("k", {kv_heads, a.qk_head_dim()});
    const ValueId v = add_rows("v", {kv_heads, a.value_head_dim()});
    builder_.add_op(OpKind::attention_prepare, at(layer), inputs, {q, k, v});

    Attributes core = at(layer);
    core.context =
        spec_.context > 0 ? spec_.context : spec_.tokens / std::max(1.0, spec_.sequences);
    const int64_t window = a.window.empty() ? 0 : a.window.at(layer - 1);
    // Mean keys of a query within a window w: w (S - w/2) / S; the cost model halves the context.
    if (window > 0 && window < core.context) {
      const double w = static_cast<double>(window);
      core.context = 2.0 * w * (core.context - w / 2) / core.context;
    }
    core.heads = static_cast<int>(heads);
    core.qk_head_dim = a.qk_head_dim();
    core.value_head_dim = a.value_head_dim();
    const ValueId heads_out = add_rows("attention heads", {heads * a.value_head_dim()});
    builder_.add_op(OpKind::attention_core, core, {q, k, v}, {heads_out});

    const ValueId output =
        parameter(weight(layer, "attention.output"), {model_.hidden, heads * a.value_head_dim()});
    const ValueId out = add_rows("attention output", {model_.hidden});
    builder_.add_op(OpKind::output_projection, at(layer), {heads_out, output}, {out});
    contribute(layer, Source::attention, out);
  }

  void add_shared(int layer) {
    const bool dense = model_.layers[layer - 1].dense();
    const int64_t width = share(dense ? model_.mlp.dense_width : model_.mlp.shared_width);
    const std::string part = dense ? "dense." : "shared.";
    const ValueId gate_up = parameter(weight(layer, part + "gate_up"), {2 * width, model_.hidden});
    const ValueId down = parameter(weight(layer, part + "down"), {model_.hidden, width});
    const ValueId in = normed(layer, Reader::shared);
    const ValueId out = add_rows(dense ? "dense output" : "shared output", {model_.hidden});
    builder_.add_op(dense ? OpKind::dense_mlp : OpKind::shared_experts, at(layer),
                    {in, gate_up, down}, {out});
    contribute(layer, Source::shared, out);
  }

  Attributes routing_attributes(int layer) const {
    const RouterConfig& router = model_.router;
    Attributes a = at(layer);
    a.routing = spec_.routing;
    a.dispatch = per_rank() ? DispatchForm::per_rank : DispatchForm::per_expert;
    a.wire = exchanges() ? spec_.wire : spec_.dtype;
    a.experts = router.experts;
    a.top_k = router.top_k;
    a.groups = router.groups;
    a.kept_groups = router.kept_groups;
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

  void add_routed(int layer) {
    const ValueId in = normed(layer, Reader::moe);
    if (connectivity_.seen(layer, Reader::routing_weights) !=
        connectivity_.seen(layer, Reader::moe)) {
      throw GraphError("routing weights that read another input than the choice of experts",
                       {.where = "connectivity " + connectivity_.name(),
                        .hint = "let routing_weights follow moe"});
    }
    const Routing routing = add_router(layer, in);
    contribute(layer, Source::routed,
               replicated() ? add_local_experts(layer, in, routing)
               : alone()    ? add_own_experts(layer, in, routing)
                            : add_exchanged_experts(layer, in, routing));
  }

  struct Routing {
    ValueId chosen, weights, order, inverse, counts;
    OpId plan;
  };

  Routing add_router(int layer, ValueId in) {
    const RouterConfig& r = model_.router;
    const int64_t choices = r.experts + r.zero_experts;
    const Attributes attributes = routing_attributes(layer);
    std::vector<ValueId> inputs = {in,
                                   parameter(weight(layer, "router"), {choices, model_.hidden})};
    if (r.correction_bias) {
      inputs.push_back(parameter(weight(layer, "router_bias"), {choices}, DType::float32));
    }
    Routing out{};
    out.chosen = builder_.add_value(rows("chosen experts", {r.top_k}, DType::int64));
    out.weights = builder_.add_value(rows("routing weights", {r.top_k}, DType::float32));
    builder_.add_op(OpKind::router, attributes, inputs, {out.chosen, out.weights});
    auto slots = [&](const char* name) {
      return builder_.add_value(
          {.name = name, .dtype = DType::int64, .shape = {{r.top_k, tokens_}}});
    };
    out.order = slots("row order");
    out.inverse = slots("inverse order");
    const auto to_rank = counts_per_rank();
    out.counts =
        per_rank()
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
                                 .name = weight(layer, name),
                                 .dtype = spec_.dtype,
                                 .shape = {{1, local_experts_}, {out}, {in}}});
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
                   .shape = {{spec_.ranks}, {1, local_experts_}}};
    if (per_rank()) {
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
    const Dim to_send = per_rank() ? Dim{1, sent_rows} : Dim{model_.router.top_k, tokens_};
    const ValueId permuted = add_moving_rows("rows to send", to_send, attributes);
    // Plain rows are written from tokens that are read once; packets are packed row by row.
    const ValueId rows_or_slots = sends_packets(attributes) ? routing.order : routing.inverse;
    std::vector<ValueId> inputs = {in, rows_or_slots, routing.counts};
    if (per_rank()) inputs.insert(inputs.end(), {routing.chosen, routing.weights});
    builder_.add_op(OpKind::permute, attributes, inputs, {permuted});
    const ValueId received = add_moving_rows("received rows", {1, received_rows}, attributes);
    builder_.add_op(OpKind::dispatch, attributes, {permuted, routing.counts, received_counts},
                    {received});
    const ValueId computed = per_rank()
                                 ? add_summed_experts(layer, received, received_counts)
                                 : add_experts(layer, received, received_counts, received_rows);
    const SymbolId home_rows =
        per_rank() ? row_symbol(Symbol::Kind::home_rows, "home rows", layer, sent) : sent_rows;
    const ValueId combined = add_row_value("combined rows", home_rows);
    builder_.add_op(OpKind::combine, attributes, {computed, routing.counts, received_counts},
                    {combined});
    const ValueId routed = add_rows("routed output", {model_.hidden});
    inputs = {combined, routing.inverse};
    if (!per_rank()) inputs.push_back(routing.weights);  // else they were weighed already
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
    const ValueId counts = builder_.add_value(
        {.name = "rows per local expert", .dtype = DType::int64, .shape = {{1, local_experts_}}});
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
                                 .shape = {{model_.router.top_k, tokens_}, {model_.hidden}}});
    };
    const ValueId permuted = slots("permuted rows");
    builder_.add_op(OpKind::permute, attributes, {in, routing.inverse, routing.counts}, {permuted});
    const auto [gate_up, down] = expert_weights(layer);
    const ValueId computed = slots("expert rows");
    builder_.add_op(OpKind::experts, attributes, {permuted, routing.counts, gate_up, down},
                    {computed});
    const ValueId routed = add_rows("routed output", {model_.hidden});
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
    const ValueId routed = add_rows("partial routed output", {model_.hidden});
    builder_.add_op(OpKind::unpermute, attributes, {computed, routing.inverse, routing.weights},
                    {routed});
    return routed;
  }

  void add_head() {
    const ValueId last = stream_.read_final(builder_, stream_value());
    const bool all = spec_.head == HeadRows::all;
    const Dim head_rows{1, all ? tokens_ : sequences_};
    const ValueId normed = builder_.add_value(
        {.name = "final rows", .dtype = spec_.dtype, .shape = {head_rows, {model_.hidden}}});
    builder_.add_op(OpKind::final_norm, at(0), {last, parameter("final_norm", {model_.hidden})},
                    {normed});
    const ValueId logits = builder_.add_value({.name = "logits",
                                               .dtype = DType::float32,
                                               .shape = {head_rows, {share(model_.vocabulary)}}});
    const ValueId table = parameter("head", {share(model_.vocabulary), model_.hidden});
    builder_.add_op(OpKind::head, at(0), {normed, table}, {logits});
    builder_.add_output(logits);
  }

  const ModelConfig& model_;
  const Connectivity& connectivity_;
  const StepSpec& spec_;
  GraphBuilder builder_;
  ResidualStream stream_;
  int split_ = 1;  // tensor parallelism of attention, shared experts and dense MLPs
  SymbolId tokens_ = none, sequences_ = none, local_experts_ = none;
  ValueId cosines_ = none, sines_ = none;
  std::map<std::string, ValueId> parameters_;
  std::map<std::pair<std::string, ValueId>, ValueId> norms_;
};

}  // namespace

Graph build_forward(const ModelConfig& model, const Connectivity& connectivity,
                    const StepSpec& spec) {
  check_spec(model, connectivity, spec);
  return ForwardBuilder(model, connectivity, spec).build();
}

}  // namespace farskip
