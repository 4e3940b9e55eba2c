#include "farskip/comm/agreement.h"

#include <vector>

#include "farskip/comm/gather_texts.h"

namespace farskip {
namespace {

constexpr size_t kLongest = 200;  // characters of a value in a message

std::string value_of(const std::string& text, size_t rank) {
  const bool cut = text.size() > kLongest;
  return "'" + text.substr(0, kLongest) + (cut ? "..." : "") + "' on rank " + std::to_string(rank);
}

}  // namespace

std::optional<CommError> find_difference(const std::string& name,
                                         std::span<const std::string> texts) {
  for (size_t rank = 1; rank < texts.size(); ++rank) {
    if (texts[rank] == texts[0]) continue;
    return CommError("ranks disagree", {.where = name,
                                        .expected = value_of(texts[0], 0),
                                        .found = value_of(texts[rank], rank),
                                        .hint = "start all ranks of a job alike"});
  }
  return std::nullopt;
}

void require_agreement(Group& group, Tag tag, const std::string& name, const std::string& text) {
  if (const auto error = find_difference(name, gather_texts(group, tag, text))) throw *error;
}

}  // namespace farskip
