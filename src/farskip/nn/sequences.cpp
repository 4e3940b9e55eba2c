#include "farskip/nn/sequences.h"

#include <string>

#include "farskip/base/error.h"

namespace farskip {
namespace {

void check_lengths(const std::vector<int64_t>& lengths, int64_t tokens) {
  int64_t left = tokens;
  for (const int64_t length : lengths) {
    if (length < 0 || length > left) left = -1;
    if (left < 0) break;
    left -= length;
  }
  if (left == 0) return;
  throw Error("sequence lengths do not fit the tokens",
              {.where = "lengths",
               .expected = "numbers of 0 and more that sum to " + std::to_string(tokens),
               .found = left < 0 ? "a negative one or a larger sum" : "a smaller sum",
               .hint = {}});
}

}  // namespace

std::vector<SequenceGroup> group_sequences(const std::vector<int64_t>& lengths, int64_t tokens,
                                           bool one_by_one) {
  check_lengths(lengths, tokens);
  std::vector<SequenceGroup> groups;
  int64_t first = 0;
  for (const int64_t length : lengths) {
    const bool joins = !one_by_one && !groups.empty() && groups.back().length == length;
    if (joins) {
      ++groups.back().batch;
    } else if (length > 0) {
      groups.push_back({first, 1, length});
    }
    first += length;
  }
  return groups;
}

}  // namespace farskip
