#pragma once

#include "farskip/trace/timeline.h"

namespace farskip {

// What a span is to someone who looks at a picture or asks which communication can be hidden.
enum class SpanCategory {
  attention,            // projections, rotary embedding, core
  dense,                // shared experts and dense MLPs
  routed,               // routed experts
  small,                // sums, norms, router, permutations, embedding, head
  dispatch,             // all chunks of it
  combine,              // all chunks of it
  other_communication,  // counts, all-reduce, gather, ...
};
inline constexpr int span_category_count = 7;

// Told from the lane and from the words in the op's name ("attention", "shared", "dispatch", ...),
// so that measured and simulated timelines need no more than names.
SpanCategory category_of(const Span& span);
// Of the backward pass: a gradient.
bool is_backward(const Span& span);

// For legends, e.g. "routed experts".
const char* to_string(SpanCategory category);

// "dispatch, layer 3, chunk 1": indices count from 0, and those that are 0 are left out.
std::string describe(const Span& span);

}  // namespace farskip
