#include "farskip/io/pattern.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <array>

#include "farskip/base/error.h"
#include "farskip/io/pattern_dialect.h"
#include "farskip/io/utf8.h"

namespace farskip {
namespace {

struct Free {
  void operator()(pcre2_code* code) const { pcre2_code_free(code); }
  void operator()(pcre2_compile_context* context) const { pcre2_compile_context_free(context); }
  void operator()(pcre2_match_context* context) const { pcre2_match_context_free(context); }
  void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
  void operator()(pcre2_jit_stack* stack) const { pcre2_jit_stack_free(stack); }
};

template <typename T>
using Owned = std::unique_ptr<T, Free>;

PCRE2_SPTR units(std::string_view text) {
  // An empty view may be null, which PCRE2 10.42 and older refuse.
  static constexpr char nothing = 0;
  return reinterpret_cast<PCRE2_SPTR>(text.data() == nullptr ? &nothing : text.data());
}

std::string message_of(int error) {
  std::array<PCRE2_UCHAR, 256> buffer{};
  pcre2_get_error_message(error, buffer.data(), buffer.size());
  return reinterpret_cast<const char*>(buffer.data());
}

Owned<pcre2_code> compile(std::string_view expression, uint32_t options, const std::string& where) {
  const Owned<pcre2_compile_context> context(pcre2_compile_context_create(nullptr));
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  int error = 0;
  PCRE2_SIZE offset = 0;
  Owned<pcre2_code> code(pcre2_compile(units(expression), expression.size(), PCRE2_UTF | options,
                                       &error, &offset, context.get()));
  if (!code) {
    throw UnsupportedError("regular expression can not be compiled",
                           {.where = where + ": " + std::string(expression),
                            .expected = {},
                            .found = message_of(error) + " at byte " + std::to_string(offset),
                            .hint = {}});
  }
  // Where PCRE2 has no JIT for this machine, it interprets.
  pcre2_jit_compile(code.get(), PCRE2_JIT_COMPLETE);
  return code;
}

constexpr size_t jit_stack_start = 32 << 10, jit_stack_most = 16 << 20;  // bytes

}  // namespace

struct Pattern::Compiled {
  Owned<pcre2_code> code;
};

struct PatternMatches::Workspace {
  Owned<pcre2_match_data> data;
  Owned<pcre2_jit_stack> stack;
  Owned<pcre2_match_context> context;
};

bool patterns_are_available() { return true; }

Pattern Pattern::regex(std::string_view expression, const std::string& where) {
  const std::string translated = to_pcre2(expression, where);
  return Pattern(std::make_shared<const Compiled>(
      Compiled{compile(translated, PCRE2_UCP | PCRE2_MULTILINE, where)}));
}

Pattern Pattern::literal(std::string_view text, const std::string& where) {
  return Pattern(std::make_shared<const Compiled>(Compiled{compile(text, PCRE2_LITERAL, where)}));
}

PatternMatches::PatternMatches(const Pattern& pattern)
    : compiled_(pattern.compiled_), workspace_(std::make_unique<Workspace>()) {
  workspace_->data.reset(pcre2_match_data_create_from_pattern(compiled_->code.get(), nullptr));
  workspace_->context.reset(pcre2_match_context_create(nullptr));
  workspace_->stack.reset(pcre2_jit_stack_create(jit_stack_start, jit_stack_most, nullptr));
  pcre2_jit_stack_assign(workspace_->context.get(), nullptr, workspace_->stack.get());
}

PatternMatches::~PatternMatches() = default;

void PatternMatches::search(std::string_view text) {
  text_ = text;
  position_ = 0;
  last_end_.reset();
}

std::optional<TextRange> PatternMatches::next() {
  while (position_ <= text_.size()) {
    const int found =
        pcre2_match(compiled_->code.get(), units(text_), text_.size(), position_,
                    PCRE2_NO_UTF_CHECK, workspace_->data.get(), workspace_->context.get());
    if (found == PCRE2_ERROR_NOMATCH) break;
    if (found < 0) {
      throw Error("regular expression can not be matched",
                  {.where = "tokenizer", .expected = {}, .found = message_of(found), .hint = {}});
    }
    const PCRE2_SIZE* ends = pcre2_get_ovector_pointer(workspace_->data.get());
    const TextRange range{ends[0], ends[1]};
    if (range.begin == range.end && last_end_ == range.end) {
      const bool at_end = position_ == text_.size();
      position_ += at_end ? 1 : first_code_point(text_.substr(position_)).bytes;
      continue;
    }
    position_ = range.end;
    last_end_ = range.end;
    return range;
  }
  position_ = text_.size() + 1;
  return std::nullopt;
}

}  // namespace farskip
