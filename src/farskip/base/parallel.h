#pragma once

#include <cstddef>
#include <functional>

namespace farskip {

// Calls task(0) .. task(count - 1), each once, on as many threads as this process has cores;
// returns when all have ended. Tasks must not touch what another one writes. If tasks throw, those
// not begun are left out and of the errors the one of the lowest index is rethrown.
void parallel_for(size_t count, const std::function<void(size_t)>& task);

}  // namespace farskip
