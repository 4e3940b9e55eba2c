#pragma once

#include <c10/core/ScalarType.h>

#include "farskip/graph/graph.h"

namespace farskip {

// The tensor dtype of a graph dtype and back. dtype_of throws UnsupportedError for one that graphs
// do not have.
at::ScalarType scalar_type_of(DType dtype);
DType dtype_of(at::ScalarType type);

}  // namespace farskip
