#include "farskip/graph/update.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "farskip/base/error.h"
#include "farskip/graph/copier.h"
#include "farskip/graph/step_outputs.h"

namespace farskip {
namespace {

// The number of what stages sum at a step's end.
constexpr int after_all_messages = -1;

// A parameter of which there is one for each expert of the rank.
bool is_of_experts(const Graph& graph, const Value& value) {
  return value.shape.size() == 3 && !value.shape[0].exact() &&
         graph.symbol(value.shape[0].symbol).kind == Symbol::Kind::local_experts;
}

// Values of one kind by name: several where a parameter is cut into chunks.
std::map<std::string, std::vector<ValueId>> by_name(const Graph& graph, ValueKind kind) {
  std::map<std::string, std::vector<ValueId>> named;
  for (const Value& value : graph.values()) {
    if (value.kind == kind) named[value.name].push_back(value.id);
  }
  return named;
}

// Ranks that share out the experts.
int expert_ranks_of(const Graph& graph) {
  int ranks = 1;
  for (const Op& op : graph.ops()) {
    if (is_among_experts(op.kind)) ranks = std::max(ranks, op.attributes.ranks);
  }
  return ranks;
}

class UpdateBuilder {
 public:
  UpdateBuilder(const Graph& graph, std::span<const ParameterBucket> buckets, int ranks, int stages)
      : graph_(graph),
        buckets_(buckets),
        ranks_(ranks),
        stages_(stages),
        expert_ranks_(expert_ranks_of(graph)),
        copier_(graph, true, "update"),
        builder_(copier_.builder()),
        gradients_(by_name(graph, ValueKind::gradient)),
        parameters_(by_name(graph, ValueKind::parameter)) {}

  Graph run() {
    check();
    for (const Op& op : graph_.ops()) copier_.copy(op);
    for (size_t i = 0; i < buckets_.size(); ++i) add_reduction(i);
    const ValueId squares = add_norm();
    for (size_t i = 0; i < buckets_.size(); ++i) add_bucket_update(i, squares);
    for (ValueId id : graph_.outputs()) builder_.add_output(copier_.map(id));
    builder_.add_output(squares);
    return builder_.finish();
  }

 private:
  void check() const {
    if (ranks_ % expert_ranks_ != 0) {
      throw GraphError("ranks do not divide into sets that share out the experts",
                       {.where = "ranks",
                        .expected = "a multiple of " + std::to_string(expert_ranks_),
                        .found = std::to_string(ranks_)});
    }
    std::set<std::string> named;
    for (const ParameterBucket& bucket : buckets_) {
      for (const std::string& name : bucket.names) {
        const bool known = gradients_.count(name) != 0 && named.insert(name).second;
        if (!known) {
          throw GraphError("a bucket holds a parameter without a gradient, or one twice",
                           {.where = name});
        }
      }
    }
    if (gradients_.empty() || named.size() != gradients_.size()) {
      throw GraphError("buckets do not hold every parameter that has a gradient",
                       {.where = graph_.description(),
                        .expected = std::to_string(gradients_.size()) + " parameters",
                        .found = std::to_string(named.size())});
    }
  }

  Attributes at(size_t bucket) const {
    return {.bucket = static_cast<int>(bucket), .ranks = ranks_};
  }

  // Ranks that have the bucket's parameters.
  int holders(size_t bucket) const {
    return buckets_[bucket].of_experts ? ranks_ / expert_ranks_ : ranks_;
  }

  std::vector<ValueId> mapped(const std::map<std::string, std::vector<ValueId>>& named,
                              size_t bucket) {
    std::vector<ValueId> values;
    for (const std::string& name : buckets_[bucket].names) {
      for (ValueId id : named.at(name)) values.push_back(copier_.map(id));
    }
    return values;
  }

  // Of what each holder updates; of experts, for each of them.
  int64_t part_elements(size_t bucket) const {
    const int parts = holders(bucket);
    int64_t elements = 0;
    for (const std::string& name : buckets_[bucket].names) {
      int64_t count = 1;
      for (const Dim& dim : graph_.value(parameters_.at(name).front()).shape) count *= dim.size;
      elements += count;
    }
    return (elements + parts - 1) / parts;
  }

  // `parts` parts of a bucket.
  ValueId add_parts(size_t bucket, const char* name, DType dtype, int64_t parts) {
    Dim size{parts * part_elements(bucket)};
    if (buckets_[bucket].of_experts) {
      const auto found = std::ranges::find_if(graph_.symbols(), [](const Symbol& symbol) {
        return symbol.kind == Symbol::Kind::local_experts && symbol.chunks == 1;
      });
      size.symbol = static_cast<SymbolId>(found - graph_.symbols().begin());
    }
    return builder_.add_value({.name = name, .dtype = dtype, .shape = {size}});
  }

  // What the update of a bucket reads: this rank's part of the reduced gradients, or all of them.
  void add_reduction(size_t bucket) {
    std::vector<ValueId> gradients = mapped(gradients_, bucket);
    if (holders(bucket) > 1) {
      const DType dtype = builder_.value(gradients[0]).dtype;
      const ValueId part = add_parts(bucket, "gradient part", dtype, 1);
      Attributes attributes = at(bucket);
      attributes.wire = dtype;
      if (buckets_[bucket].of_experts) {
        const ValueId parts = add_parts(bucket, "gradient parts", dtype, holders(bucket));
        builder_.add_op(OpKind::exchange_gradients, attributes, gradients, {parts});
        builder_.add_op(OpKind::sum_gradients, attributes, {parts}, {part});
      } else {
        builder_.add_op(OpKind::reduce_gradients, attributes, gradients, {part});
      }
      gradients = {part};
    }
    reduced_.push_back(gradients);
  }

  ValueId add_norm() {
    std::vector<ValueId> all;
    for (const auto& gradients : reduced_)
      all.insert(all.end(), gradients.begin(), gradients.end());
    const ValueId squares = builder_.add_value(
        {.name = step_outputs::squares, .dtype = DType::float64, .shape = {{1}}});
    builder_.add_op(OpKind::gradient_norm, {.ranks = ranks_}, all, {squares});
    return sum_over_stages(ranks_ == 1 ? squares : add_reduction(squares, {.ranks = ranks_}));
  }

  // Stages wait for each other here, so whatever one of them waits for must be sent before.
  ValueId sum_over_stages(ValueId squares) {
    if (stages_ == 1) return squares;
    Attributes attributes;
    attributes.stages = stages_;
    attributes.message = after_all_messages;
    std::vector<OpId> messages;
    for (const Op& op : graph_.ops()) {
      if (is_between_stages(op.attributes)) messages.push_back(op.id);
    }
    return add_reduction(squares, attributes, messages);
  }

  ValueId add_reduction(ValueId squares, const Attributes& attributes,
                        std::vector<OpId> order_after = {}) {
    const Value like = builder_.value(squares);
    const ValueId sum = builder_.add_value(like);
    builder_.add_op(OpKind::all_reduce, attributes, {squares}, {sum}, std::move(order_after));
    return sum;
  }

  void add_bucket_update(size_t bucket, ValueId squares) {
    std::vector<ValueId> inputs = reduced_[bucket];
    inputs.push_back(squares);
    std::vector<OpId> readers;
    for (const std::string& name : buckets_[bucket].names) {
      for (ValueId id : parameters_.at(name)) {
        const auto consumers = graph_.consumers(id);  // copies have the ids of what they copy
        readers.insert(readers.end(), consumers.begin(), consumers.end());
      }
    }
    if (holders(bucket) == 1) {
      builder_.add_op(OpKind::update, at(bucket), inputs, {}, readers);
      return;
    }
    const DType dtype = graph_.value(parameters_.at(buckets_[bucket].names.front()).front()).dtype;
    const ValueId part = add_parts(bucket, "parameter part", dtype, 1);
    builder_.add_op(OpKind::update, at(bucket), inputs, {part}, readers);
    Attributes attributes = at(bucket);
    attributes.wire = dtype;
    builder_.add_op(
        buckets_[bucket].of_experts ? OpKind::spread_parameters : OpKind::gather_parameters,
        attributes, {part}, {}, readers);
  }

  const Graph& graph_;
  const std::span<const ParameterBucket> buckets_;
  const int ranks_, stages_, expert_ranks_;
  GraphCopier copier_;
  GraphBuilder& builder_;
  const std::map<std::string, std::vector<ValueId>> gradients_, parameters_;
  std::vector<std::vector<ValueId>> reduced_;  // by bucket
};

}  // namespace

std::vector<ParameterBucket> plan_buckets(const Graph& backward, double bytes) {
  std::vector<OpId> complete(backward.values().size(), none);  // by gradient
  for (const Op& op : backward.ops()) {
    for (ValueId id : op.accumulates) complete[id] = op.id;
  }
  std::vector<ValueId> order;
  for (const Value& value : backward.values()) {
    if (value.kind == ValueKind::gradient) order.push_back(value.id);
  }
  std::ranges::stable_sort(order, {}, [&](ValueId id) { return complete[id]; });
  std::vector<ParameterBucket> buckets;
  std::map<bool, size_t> open;  // the bucket that is being filled: of experts, and of others
  std::map<bool, double> filled;
  std::set<std::string> placed;
  for (ValueId id : order) {
    const Value& value = backward.value(id);
    if (!placed.insert(value.name).second) continue;
    const bool of_experts = is_of_experts(backward, value);
    const bool starts = open.count(of_experts) == 0 || filled[of_experts] >= bytes;
    if (starts) {
      open[of_experts] = buckets.size();
      filled[of_experts] = 0;
      buckets.push_back({.names = {}, .of_experts = of_experts});
    }
    buckets[open[of_experts]].names.push_back(value.name);
    filled[of_experts] += backward.expected_bytes(id) * value.chunks;
  }
  return buckets;
}

Graph add_update(const Graph& backward, std::span<const ParameterBucket> buckets, int ranks,
                 int stages) {
  return UpdateBuilder(backward, buckets, ranks, stages).run();
}

}  // namespace farskip
