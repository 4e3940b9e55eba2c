#include "farskip/graph/build_values.h"

namespace farskip {
namespace {

SymbolId add_size(GraphBuilder& builder, Symbol::Kind kind, const char* name, double expected,
                  double bound) {
  return builder.add_symbol({.kind = kind, .name = name, .expected = expected, .bound = bound});
}

double experts_of_rank(const ModelConfig& model, const StepSpec& spec) {
  return static_cast<double>(model.router.experts) / spec.ranks;
}

}  // namespace

StepValues::StepValues(const ModelConfig& model, const StepSpec& spec)
    : model(model),
      spec(spec),
      tokens(add_size(builder, Symbol::Kind::tokens, "tokens", spec.tokens, spec.tokens)),
      sequences(
          add_size(builder, Symbol::Kind::sequences, "sequences", spec.sequences, spec.sequences)),
      local_experts(add_size(builder, Symbol::Kind::local_experts, "local experts",
                             experts_of_rank(model, spec),
                             std::ceil(experts_of_rank(model, spec)))) {}

int64_t StepValues::share(int64_t size) const {
  const int64_t parts = replicated() ? spec.ranks : 1;
  return (size + parts - 1) / parts;
}

Value StepValues::rows(std::string name, std::vector<int64_t> widths, DType dtype) const {
  Value value{.name = std::move(name), .dtype = dtype, .shape = {{1, tokens}}};
  for (int64_t width : widths) value.shape.push_back({width});
  return value;
}

ValueId StepValues::add_rows(std::string name, std::vector<int64_t> widths) {
  return builder.add_value(rows(std::move(name), std::move(widths), spec.dtype));
}

ValueId StepValues::parameter(const std::string& name, std::vector<int64_t> shape) {
  return parameter(name, std::move(shape), spec.dtype);
}

ValueId StepValues::parameter(const std::string& name, std::vector<int64_t> shape, DType dtype) {
  const auto found = parameters_.find(name);
  if (found != parameters_.end()) return found->second;
  Value value{.kind = ValueKind::parameter, .name = name, .dtype = dtype};
  for (int64_t size : shape) value.shape.push_back({size});
  return parameters_[name] = builder.add_value(value);
}

}  // namespace farskip
