#include "farskip/runtime/dtypes.h"

#include "farskip/base/error.h"

namespace farskip {

at::ScalarType scalar_type_of(DType dtype) {
  switch (dtype) {
    case DType::float32:
      return at::kFloat;
    case DType::bfloat16:
      return at::kBFloat16;
    case DType::float16:
      return at::kHalf;
    case DType::float8_e4m3:
      return at::kFloat8_e4m3fn;
    case DType::int32:
      return at::kInt;
    case DType::int64:
      return at::kLong;
    case DType::uint8:
      return at::kByte;
    case DType::float64:
      return at::kDouble;
  }
  return at::kFloat;
}

DType dtype_of(at::ScalarType type) {
  for (DType dtype : {DType::float32, DType::bfloat16, DType::float16, DType::float8_e4m3,
                      DType::int32, DType::int64, DType::uint8, DType::float64}) {
    if (scalar_type_of(dtype) == type) return dtype;
  }
  throw UnsupportedError(
      "no graph holds values of this dtype",
      {.expected = "float32, bfloat16, float16, float8_e4m3, int32, int64, uint8 or float64",
       .found = c10::toString(type)});
}

}  // namespace farskip
