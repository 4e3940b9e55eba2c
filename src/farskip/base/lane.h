#pragma once

namespace farskip {

// Where an op runs. Each lane is first in, first out.
enum class Lane { compute, communication };

inline const char* to_string(Lane lane) {
  return lane == Lane::compute ? "compute" : "communication";
}

}  // namespace farskip
