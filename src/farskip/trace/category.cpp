#include "farskip/trace/category.h"

#include <string_view>

namespace farskip {
namespace {

bool mentions(std::string_view name, std::initializer_list<std::string_view> words) {
  for (std::string_view word : words) {
    if (name.find(word) != std::string_view::npos) return true;
  }
  return false;
}

}  // namespace

SpanCategory category_of(const Span& span) {
  if (span.lane == Lane::communication) {
    if (mentions(span.name, {"dispatch"})) return SpanCategory::dispatch;
    if (mentions(span.name, {"combine"})) return SpanCategory::combine;
    return SpanCategory::other_communication;
  }
  if (mentions(span.name, {"attention", "projection"})) return SpanCategory::attention;
  if (mentions(span.name, {"shared", "dense"})) return SpanCategory::dense;
  if (mentions(span.name, {"experts", "routed"})) return SpanCategory::routed;
  return SpanCategory::small;
}

bool is_backward(const Span& span) { return mentions(span.name, {"gradient"}); }

const char* to_string(SpanCategory category) {
  switch (category) {
    case SpanCategory::attention:
      return "attention";
    case SpanCategory::dense:
      return "shared, dense MLP";
    case SpanCategory::routed:
      return "routed experts";
    case SpanCategory::small:
      return "router and small ops";
    case SpanCategory::dispatch:
      return "dispatch";
    case SpanCategory::combine:
      return "combine";
    case SpanCategory::other_communication:
      return "other collectives";
  }
  return "unknown";
}

std::string describe(const Span& span) {
  std::string text = span.name;
  if (span.layer > 0) text += ", layer " + std::to_string(span.layer);
  if (span.micro_batch > 0) text += ", micro-batch " + std::to_string(span.micro_batch);
  if (span.chunk > 0) text += ", chunk " + std::to_string(span.chunk);
  if (span.piece > 0) text += ", piece " + std::to_string(span.piece);
  return text;
}

}  // namespace farskip
