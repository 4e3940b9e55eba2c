#include "farskip/graph/build.h"

#include <cmath>
#include <map>
#include <string>

#include "farskip/base/error.h"
#include "farskip/graph/build_routed.h"
#include "farskip/graph/build_values.h"
#include "farskip/graph/residual.h"
#include "farskip/graph/step_outputs.h"

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
  if (spec.end == StepEnd::loss && spec.head != HeadRows::all) {
    throw GraphError("a loss is of all rows", {.where = "head"});
  }
  if (spec.data_parallel < 1) {
    throw GraphError("there is at least one set of ranks",
                     {.where = "data_parallel", .found = std::to_string(spec.data_parallel)});
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
      : model_(model),
        connectivity_(connectivity),
        spec_(spec),
        step_(model, spec),
        builder_(step_.builder),
        stream_(connectivity) {}

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
  void add_inputs() {
    Value ids = step_.rows("input_ids", {}, DType::int64),
          positions = step_.rows("positions", {}, DType::int64);
    ids.kind = positions.kind = ValueKind::input;
    const ValueId input_ids = builder_.add_value(ids), position = builder_.add_value(positions);
    const ValueId table = step_.parameter("embedding", {model_.vocabulary, model_.hidden});
    const ValueId embedding = step_.add_rows("embedding rows", {model_.hidden});
    builder_.add_op(OpKind::embedding, step_.at(0), {input_ids, table}, {embedding});
    stream_.set_embedding(embedding);
    const int64_t half = model_.rope.dims / 2;
    cosines_ = builder_.add_value(step_.rows("cosines", {half}, DType::float32));
    sines_ = builder_.add_value(step_.rows("sines", {half}, DType::float32));
    builder_.add_op(OpKind::rope_tables, step_.at(0), {position}, {cosines_, sines_});
  }

  // The reader's input behind the norm of its block; computed once where readers agree.
  ValueId normed(int layer, Reader reader) {
    const ValueId input =
        stream_.read(builder_, step_.rows("residual", {model_.hidden}, spec_.dtype), layer, reader);
    const std::string name =
        StepValues::weight(layer, reader == Reader::attention ? "attention_norm" : "mlp_norm");
    const auto key = std::make_pair(name, input);
    const auto found = norms_.find(key);
    if (found != norms_.end()) return found->second;
    const ValueId out = step_.add_rows("normed", {model_.hidden});
    builder_.add_op(OpKind::norm, step_.at(layer), {input, step_.parameter(name, {model_.hidden})},
                    {out});
    return norms_[key] = out;
  }

  // Partial outputs of a replicated step are summed over the ranks; others are whole already.
  void contribute(int layer, Source source, ValueId value) {
    if (step_.replicated() && spec_.ranks > 1) {
      const ValueId whole = step_.add_rows("reduced", {model_.hidden});
      Attributes attributes = step_.at(layer);
      attributes.wire = spec_.dtype;
      builder_.add_op(OpKind::all_reduce, attributes, {value}, {whole});
      value = whole;
    }
    stream_.set_contribution({layer, source}, value);
  }

  std::vector<ValueId> attention_weights(int layer) {
    const AttentionConfig& a = model_.attention;
    const int64_t heads = step_.share(a.heads), hidden = model_.hidden;
    std::vector<ValueId> weights;
    auto add = [&](const char* name, std::vector<int64_t> shape) {
      weights.push_back(step_.parameter(StepValues::weight(layer, name), std::move(shape)));
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
      add("attention.qkv", {(heads + 2 * step_.share(a.kv_heads)) * a.head_dim, hidden});
      if (a.qk_norm == AttentionConfig::QkNorm::per_head) {
        add("attention.q_norm", {a.head_dim});
        add("attention.k_norm", {a.head_dim});
      } else if (a.qk_norm == AttentionConfig::QkNorm::all_heads) {
        add("attention.q_norm", {heads * a.head_dim});
        add("attention.k_norm", {step_.share(a.kv_heads) * a.head_dim});
      }
    }
    if (a.output_gate) add("attention.gate", {heads * a.value_head_dim(), hidden});
    return weights;
  }

  void add_attention(int layer) {
    const AttentionConfig& a = model_.attention;
    const int64_t heads = step_.share(a.heads);
    const bool latent = a.kind == AttentionConfig::Kind::latent;
    const int64_t kv_heads = latent ? heads : step_.share(a.kv_heads);
    std::vector<ValueId> inputs = {normed(layer, Reader::attention), cosines_, sines_};
    for (ValueId id : attention_weights(layer)) inputs.push_back(id);
    const ValueId q = step_.add_rows("q", {heads, a.qk_head_dim()});
    const ValueId k = step_.add_rows("k", {kv_heads, a.qk_head_dim()});
    const ValueId v = step_.add_rows("v", {kv_heads, a.value_head_dim()});
    builder_.add_op(OpKind::attention_prepare, step_.at(layer), inputs, {q, k, v});

    Attributes core = step_.at(layer);
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
    const ValueId heads_out = step_.add_rows("attention heads", {heads * a.value_head_dim()});
    builder_.add_op(OpKind::attention_core, core, {q, k, v}, {heads_out});

    const ValueId output = step_.parameter(StepValues::weight(layer, "attention.output"),
                                           {model_.hidden, heads * a.value_head_dim()});
    const ValueId out = step_.add_rows("attention output", {model_.hidden});
    builder_.add_op(OpKind::output_projection, step_.at(layer), {heads_out, output}, {out});
    contribute(layer, Source::attention, out);
  }

  void add_shared(int layer) {
    const bool dense = model_.layers[layer - 1].dense();
    const int64_t width = step_.share(dense ? model_.mlp.dense_width : model_.mlp.shared_width);
    const std::string part = dense ? "dense." : "shared.";
    const ValueId gate_up =
        step_.parameter(StepValues::weight(layer, part + "gate_up"), {2 * width, model_.hidden});
    const ValueId down =
        step_.parameter(StepValues::weight(layer, part + "down"), {model_.hidden, width});
    const ValueId in = normed(layer, Reader::shared);
    const ValueId out = step_.add_rows(dense ? "dense output" : "shared output", {model_.hidden});
    builder_.add_op(dense ? OpKind::dense_mlp : OpKind::shared_experts, step_.at(layer),
                    {in, gate_up, down}, {out});
    contribute(layer, Source::shared, out);
  }

  void add_routed(int layer) {
    const ValueId in = normed(layer, Reader::moe);
    if (connectivity_.seen(layer, Reader::routing_weights) !=
        connectivity_.seen(layer, Reader::moe)) {
      throw GraphError("routing weights that read another input than the choice of experts",
                       {.where = "connectivity " + connectivity_.name(),
                        .hint = "let routing_weights follow moe"});
    }
    contribute(layer, Source::routed, add_routed_experts(step_, layer, in));
  }

  void add_head() {
    const ValueId last =
        stream_.read_final(builder_, step_.rows("residual", {model_.hidden}, spec_.dtype));
    const bool all = spec_.head == HeadRows::all;
    const int64_t vocabulary = step_.share(model_.vocabulary);
    const Dim head_rows{1, all ? step_.tokens : step_.sequences};
    const ValueId normed = builder_.add_value(
        {.name = "final rows", .dtype = spec_.dtype, .shape = {head_rows, {model_.hidden}}});
    builder_.add_op(OpKind::final_norm, step_.at(0),
                    {last, step_.parameter("final_norm", {model_.hidden})}, {normed});
    // Of those who read logits the loss alone widens them itself.
    const ValueId logits =
        builder_.add_value({.name = "logits",
                            .dtype = spec_.end == StepEnd::logits ? DType::float32 : spec_.dtype,
                            .shape = {head_rows, {vocabulary}}});
    const bool tied = model_.tied_embeddings && vocabulary == model_.vocabulary;
    const ValueId table = step_.parameter(tied ? "embedding" : "head", {vocabulary, model_.hidden});
    builder_.add_op(OpKind::head, step_.at(0), {normed, table}, {logits});
    if (spec_.end == StepEnd::logits) return builder_.add_output(logits);
    const bool counts_loads = spec_.expert_loads || spec_.router_losses.balance != 0;
    const ValueId loads = counts_loads ? add_expert_loads() : none;
    builder_.add_output(add_loss(logits));
    if (loads != none) builder_.add_output(loads);
  }

  // Of all layers at once, when the last of them is known: a single small collective, which has the
  // head to hide behind.
  ValueId add_expert_loads() {
    std::vector<ValueId> chosen;
    for (int id = 0; id < builder_.op_count(); ++id) {
      const Op& op = builder_.op(id);
      if (op.kind == OpKind::router) chosen.push_back(op.outputs[0]);
    }
    if (chosen.empty()) return none;
    const Value loads{.name = step_outputs::expert_loads,
                      .dtype = DType::int64,
                      .shape = {{static_cast<int64_t>(chosen.size())},
                                {model_.router.experts + model_.router.zero_experts}}};
    const ValueId own = builder_.add_value(loads);
    Attributes attributes = step_.at(0);
    builder_.add_op(OpKind::expert_loads, attributes, chosen, {own});
    attributes.ranks = spec_.ranks * spec_.data_parallel;
    attributes.wire = DType::int64;
    if (attributes.ranks == 1) return own;
    const ValueId all = builder_.add_value(loads);
    builder_.add_op(OpKind::all_reduce, attributes, {own}, {all});
    return all;
  }

  ValueId add_loss(ValueId logits) {
    Value labels = step_.rows("labels", {}, DType::int64);
    Value count{.name = "label_count", .dtype = DType::float32, .shape = {{1}}};
    labels.kind = count.kind = ValueKind::input;
    const ValueId loss =
        builder_.add_value({.name = step_outputs::loss, .dtype = DType::float32, .shape = {{1}}});
    builder_.add_op(OpKind::loss, step_.at(0),
                    {logits, builder_.add_value(labels), builder_.add_value(count)}, {loss});
    return loss;
  }

  const ModelConfig& model_;
  const Connectivity& connectivity_;
  const StepSpec& spec_;
  StepValues step_;
  GraphBuilder& builder_;
  ResidualStream stream_;
  ValueId cosines_ = none, sines_ = none;
  std::map<std::pair<std::string, ValueId>, ValueId> norms_;
};

}  // namespace

Graph build_forward(const ModelConfig& model, const Connectivity& connectivity,
                    const StepSpec& spec) {
  check_spec(model, connectivity, spec);
  return ForwardBuilder(model, connectivity, spec).build();
}

}  // namespace farskip
