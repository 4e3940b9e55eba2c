#include "farskip/graph/graph.h"

#include <array>

namespace farskip {

int64_t bytes_of(DType dtype) {
  switch (dtype) {
    case DType::float32:
    case DType::int32:
      return 4;
    case DType::bfloat16:
    case DType::float16:
      return 2;
    case DType::float8_e4m3:
    case DType::uint8:
      return 1;
    case DType::int64:
    case DType::float64:
      return 8;
  }
  return 0;
}

const char* to_string(DType dtype) {
  constexpr std::array names = {"float32", "bfloat16", "float16", "float8_e4m3",
                                "int32",   "int64",    "uint8",   "float64"};
  return names.at(static_cast<size_t>(dtype));
}

const char* to_string(OpKind kind) {
  constexpr std::array<const char*, op_kind_count> names = {"embedding",
                                                            "rope tables",
                                                            "sum",
                                                            "norm",
                                                            "sum and norm",
                                                            "attention prepare",
                                                            "attention core",
                                                            "output projection",
                                                            "router",
                                                            "plan",
                                                            "counts",
                                                            "permute",
                                                            "dispatch",
                                                            "arrange",
                                                            "experts",
                                                            "weigh",
                                                            "combine",
                                                            "unpermute",
                                                            "shared experts",
                                                            "dense mlp",
                                                            "join",
                                                            "all-reduce",
                                                            "expert loads",
                                                            "final norm",
                                                            "head",
                                                            "loss",
                                                            "loss gradient",
                                                            "linear gradient",
                                                            "norm gradient",
                                                            "attention prepare gradient",
                                                            "attention core gradient",
                                                            "dense mlp gradient",
                                                            "experts gradient",
                                                            "router loss",
                                                            "router gradient",
                                                            "unpermute gradient",
                                                            "routing weights gradient",
                                                            "permute gradient",
                                                            "combine gradient",
                                                            "dispatch gradient",
                                                            "linear weight gradient",
                                                            "norm weight gradient",
                                                            "attention prepare weight gradient",
                                                            "experts weight gradient",
                                                            "embedding gradient",
                                                            "dense mlp products",
                                                            "experts products",
                                                            "reduce gradients",
                                                            "gradient norm",
                                                            "update",
                                                            "gather parameters",
                                                            "exchange gradients",
                                                            "sum gradients",
                                                            "spread parameters",
                                                            "send",
                                                            "receive"};
  return names.at(static_cast<size_t>(kind));
}

bool goes_to_experts(OpKind kind) {
  return kind == OpKind::dispatch || kind == OpKind::combine_gradient;
}

bool comes_home(OpKind kind) {
  return kind == OpKind::combine || kind == OpKind::dispatch_gradient;
}

bool is_among_experts(OpKind kind) {
  return kind == OpKind::counts || goes_to_experts(kind) || comes_home(kind);
}

bool is_communication(OpKind kind) {
  return is_among_experts(kind) || kind == OpKind::all_reduce || kind == OpKind::reduce_gradients ||
         kind == OpKind::gather_parameters || kind == OpKind::exchange_gradients ||
         kind == OpKind::spread_parameters || kind == OpKind::send || kind == OpKind::receive;
}

bool is_routed(Symbol::Kind kind) {
  switch (kind) {
    case Symbol::Kind::sent_rows:
    case Symbol::Kind::received_rows:
    case Symbol::Kind::expert_rows:
    case Symbol::Kind::returned_rows:
    case Symbol::Kind::home_rows:
      return true;
    case Symbol::Kind::tokens:
    case Symbol::Kind::sequences:
    case Symbol::Kind::part:
    case Symbol::Kind::local_experts:
      return false;
  }
  return false;
}

bool sends_packets(const Attributes& attributes) {
  return attributes.dispatch == DispatchForm::per_rank || attributes.wire == DType::float8_e4m3;
}

PacketLayout packet_layout(const Attributes& attributes, int64_t width) {
  return {.width = width,
          .value_bytes = bytes_of(attributes.wire),
          .scaled = attributes.wire == DType::float8_e4m3,
          .choices = attributes.dispatch == DispatchForm::per_rank ? attributes.top_k : 0};
}

const char* to_string(DispatchForm form) {
  return form == DispatchForm::per_expert ? "per-expert" : "per-rank";
}

const char* to_string(RoutingMode mode) {
  constexpr std::array names = {"model", "balanced", "replay"};
  return names.at(static_cast<size_t>(mode));
}

double Graph::expected(const Dim& dim) const {
  const double size = static_cast<double>(dim.size);
  return dim.exact() ? size : size * symbol(dim.symbol).expected;
}

double Graph::expected_elements(ValueId id) const {
  double count = 1;
  for (const Dim& dim : value(id).shape) count *= expected(dim);
  return count;
}

double Graph::expected_bytes(ValueId id) const {
  return expected_elements(id) * static_cast<double>(bytes_of(value(id).dtype));
}

double Graph::bound_bytes(ValueId id) const {
  double count = static_cast<double>(bytes_of(value(id).dtype));
  for (const Dim& dim : value(id).shape) {
    count *= static_cast<double>(dim.size) * (dim.exact() ? 1.0 : symbol(dim.symbol).bound);
  }
  return count;
}

}  // namespace farskip
