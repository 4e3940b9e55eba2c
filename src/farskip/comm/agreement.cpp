#include "farskip/comm/agreement.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "farskip/comm/host_gather.h"

namespace farskip {
namespace {

constexpr size_t kLongest = 200;  // characters of a value in a message

std::string value_of(const std::string& text, size_t rank) {
  const bool cut = text.size() > kLongest;
  return "'" + text.substr(0, kLongest) + (cut ? "..." : "") + "' on rank " + std::to_string(rank);
}

// Every rank's text.
std::vector<std::string> gather(Group& group, Tag tag, const std::string& text) {
  const auto ranks = static_cast<int64_t>(group.size());
  const at::Tensor length = at::empty({1}, at::kLong);
  *length.mutable_data_ptr<int64_t>() = static_cast<int64_t>(text.size());
  const at::Tensor lengths = gather_on_host(group, length, tag);
  const int64_t* const sizes = lengths.const_data_ptr<int64_t>();
  const int64_t width = *std::max_element(sizes, sizes + ranks);
  const at::Tensor mine = at::zeros({width}, at::kByte);
  if (!text.empty()) std::memcpy(mine.mutable_data_ptr(), text.data(), text.size());
  const at::Tensor all = gather_on_host(group, mine, tag);
  const char* const bytes = static_cast<const char*>(all.const_data_ptr());
  std::vector<std::string> texts;
  for (int64_t rank = 0; rank < ranks; ++rank) {
    texts.emplace_back(bytes + rank * width, static_cast<size_t>(sizes[rank]));
  }
  return texts;
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
  if (const auto error = find_difference(name, gather(group, tag, text))) throw *error;
}

}  // namespace farskip
