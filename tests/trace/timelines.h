#pragma once

#include <string>

#include "farskip/base/random.h"
#include "farskip/trace/timeline.h"

namespace farskip {

inline Span compute_span(double start, double end, std::string name = "experts", int layer = 1) {
  Span span;
  span.name = std::move(name);
  span.layer = layer;
  span.posted = span.start = start;
  span.end = end;
  return span;
}

inline Span communication_span(double start, double end, std::string name = "dispatch",
                               int layer = 1) {
  Span span = compute_span(start, end, std::move(name), layer);
  span.lane = Lane::communication;
  return span;
}

// Spans anywhere on a grid of 1/16 s up to 8 s, overlapping at will, some empty.
inline Timeline random_timeline(Random& random) {
  const char* names[] = {"dispatch", "combine", "counts", "experts", "attention_core", "router"};
  Timeline timeline;
  const uint64_t count = random.below(14);
  for (uint64_t i = 0; i < count; ++i) {
    const uint64_t which = random.below(6);
    const double start = static_cast<double>(random.below(112)) / 16;
    const double length = static_cast<double>(random.below(17)) / 16;
    timeline.spans.push_back(which < 3 ? communication_span(start, start + length, names[which])
                                       : compute_span(start, start + length, names[which]));
    timeline.step_seconds = std::max(timeline.step_seconds, start + length);
  }
  return timeline;
}

}  // namespace farskip
