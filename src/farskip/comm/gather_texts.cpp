#include "farskip/comm/gather_texts.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cstring>

#include "farskip/comm/host_gather.h"

namespace farskip {

std::vector<std::string> gather_texts(Group& group, Tag tag, const std::string& own) {
  const auto ranks = static_cast<int64_t>(group.size());
  const at::Tensor length = at::empty({1}, at::kLong);
  *length.mutable_data_ptr<int64_t>() = static_cast<int64_t>(own.size());
  const at::Tensor lengths = gather_on_host(group, length, tag);
  const int64_t* const sizes = lengths.const_data_ptr<int64_t>();
  const int64_t width = *std::max_element(sizes, sizes + ranks);
  const at::Tensor mine = at::zeros({width}, at::kByte);
  if (!own.empty()) std::memcpy(mine.mutable_data_ptr(), own.data(), own.size());
  const at::Tensor all = gather_on_host(group, mine, tag);
  const char* const bytes = static_cast<const char*>(all.const_data_ptr());
  std::vector<std::string> texts;
  for (int64_t rank = 0; rank < ranks; ++rank) {
    texts.emplace_back(bytes + rank * width, static_cast<size_t>(sizes[rank]));
  }
  return texts;
}

}  // namespace farskip
