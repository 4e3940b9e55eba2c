#pragma once

#include <cstdint>

#include "farskip/model/config.h"

namespace farskip {

// A hash of all that decides what the model computes: equal for equal models whatever they are
// called and however their checkpoint is stored, the same on every machine. Any thread.
uint64_t fingerprint(const ModelConfig& config);

}  // namespace farskip
