#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "farskip/io/tokenizer.h"

namespace farskip {

// What a model is asked: the log-probability of the last `scored` ids, each behind all before it.
struct Request {
  std::vector<int64_t> ids;
  int64_t scored = 0;  // 1 to ids.size() - 1

  int64_t inputs() const {
    return static_cast<int64_t>(ids.size()) - 1;
  }  // the last is only scored
};

struct RequestOptions {
  int64_t max_length = 2048;    // inputs of a request
  bool special_tokens = false;  // those of the tokenizer's template go in front
};

// The request for a continuation behind a context, cut into tokens as lm-evaluation-harness does:
// white space at the end of the context belongs to the continuation; the ids of the continuation
// are those of the whole text behind as many as the context alone has. A context that is too long
// loses its beginning. Throws ConfigError for an empty context, or a continuation that has no ids
// of its own or more than max_length; what Tokenizer::encode throws.
Request encode_request(const Tokenizer& tokenizer, std::string_view context,
                       std::string_view continuation, const RequestOptions& options = {});

}  // namespace farskip
