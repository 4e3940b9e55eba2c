#pragma once

#include "farskip/graph/graph.h"

namespace farskip::testing {

// compute a -> communication b -> compute d; compute c is independent.
inline Graph diamond() {
  GraphBuilder builder;
  auto value = [&] { return builder.add_value({.name = "value", .shape = {{8}}}); };
  const ValueId in = builder.add_value({.kind = ValueKind::input, .name = "in", .shape = {{8}}});
  const ValueId a = value(), b = value(), c = value(), d = value();
  builder.add_op(OpKind::norm, {}, {in}, {a});
  builder.add_op(OpKind::all_reduce, {.ranks = 2}, {a}, {b});
  builder.add_op(OpKind::norm, {}, {in}, {c});
  builder.add_op(OpKind::sum, {}, {b, c}, {d});
  builder.add_output(d);
  return builder.finish();
}

}  // namespace farskip::testing
