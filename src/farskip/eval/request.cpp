#include "farskip/eval/request.h"

#include <algorithm>

#include "farskip/base/error.h"
#include "farskip/io/utf8.h"

namespace farskip {

Request encode_request(const Tokenizer& tokenizer, std::string_view context,
                       std::string_view continuation, const RequestOptions& options) {
  const std::string whole = std::string(context) + std::string(continuation);
  require_utf8(whole, "request");
  while (!context.empty() && is_white_space(last_code_point(context).value)) {
    context.remove_suffix(last_code_point(context).bytes);
  }
  const EncodeOptions encoding{.special_tokens = options.special_tokens};
  const auto context_ids = tokenizer.encode(context, encoding);
  const auto ids = tokenizer.encode(whole, encoding);
  const auto scored = static_cast<int64_t>(ids.size()) - static_cast<int64_t>(context_ids.size());
  if (context_ids.empty() || scored < 1 || scored > options.max_length) {
    throw ConfigError("continuation can not be scored",
                      {.where = std::string(context.substr(0, 60)),
                       .expected = "a context, and a continuation of 1 to " +
                                   std::to_string(options.max_length) + " tokens",
                       .found = std::to_string(context_ids.size()) + " and " +
                                std::to_string(scored) + " tokens"});
  }
  const auto kept = std::min<size_t>(ids.size(), static_cast<size_t>(options.max_length) + 1);
  return {{ids.end() - static_cast<std::ptrdiff_t>(kept), ids.end()}, scored};
}

}  // namespace farskip
