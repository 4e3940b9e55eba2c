#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "farskip/base/random.h"
#include "farskip/io/token_file.h"

namespace farskip::testing {

// A token file of a vocabulary of 512 with something to learn: each token follows from the one
// before it, but for one in eight, which is one of 60.
inline void write_learnable_text(const std::filesystem::path& path, int64_t count, uint64_t seed) {
  write_token_file(path, {.vocabulary = 512, .end_of_document = 0}, [&](TokenSink& sink) {
    Random random(seed);
    std::vector<int32_t> ids;
    int64_t id = 1;
    for (int64_t i = 0; i < count; ++i) {
      id =
          random.below(8) == 0 ? 1 + static_cast<int64_t>(random.below(60)) : 1 + (id * 7 + 3) % 60;
      ids.push_back(static_cast<int32_t>(id));
    }
    sink.add_document(ids, static_cast<uint64_t>(count));
  });
}

}  // namespace farskip::testing
