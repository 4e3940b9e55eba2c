#include "farskip/io/added_tokens.h"

#include "farskip/io/utf8.h"

namespace farskip {
namespace {

int32_t child_of(const std::vector<std::pair<char, int32_t>>& children, char byte) {
  for (const auto& [of, node] : children) {
    if (of == byte) return node;
  }
  return -1;
}

// Where the white space in front of `end` begins, but not before `least`.
size_t skip_space_back(std::string_view text, size_t least, size_t end) {
  while (end > least) {
    const CodePoint last = last_code_point(text.substr(least, end - least));
    if (!is_white_space(last.value)) break;
    end -= last.bytes;
  }
  return end;
}

size_t skip_space(std::string_view text, size_t begin) {
  while (begin < text.size()) {
    const CodePoint first = first_code_point(text.substr(begin));
    if (!is_white_space(first.value)) break;
    begin += first.bytes;
  }
  return begin;
}

}  // namespace

AddedTokenMatcher::AddedTokenMatcher(std::span<const AddedToken> tokens,
                                     std::span<const std::string> contents)
    : tokens_(tokens.begin(), tokens.end()), nodes_(1) {
  for (size_t i = 0; i < contents.size(); ++i) insert(contents[i], static_cast<int32_t>(i));
  starts_.fill(-1);
  for (const auto& [byte, node] : nodes_.front().children) {
    starts_[static_cast<unsigned char>(byte)] = node;
  }
}

void AddedTokenMatcher::insert(std::string_view content, int32_t token) {
  if (content.empty()) return;
  size_t node = 0;
  for (const char byte : content) {
    int32_t child = child_of(nodes_[node].children, byte);
    if (child < 0) {
      child = static_cast<int32_t>(nodes_.size());
      nodes_[node].children.emplace_back(byte, child);
      nodes_.emplace_back();
    }
    node = static_cast<size_t>(child);
  }
  // Of two tokens that normalize to the same text, the first counts.
  if (nodes_[node].token < 0) nodes_[node].token = token;
}

AddedTokenMatcher::Found AddedTokenMatcher::find(std::string_view text, size_t from) const {
  for (size_t begin = from; begin < text.size(); ++begin) {
    int32_t node = starts_[static_cast<unsigned char>(text[begin])];
    if (node < 0) continue;
    Found longest;
    for (size_t end = begin + 1; node >= 0; ++end) {
      const Node& here = nodes_[static_cast<size_t>(node)];
      if (here.token >= 0) longest = {begin, end, here.token};
      node = end < text.size() ? child_of(here.children, text[end]) : -1;
    }
    if (longest.token >= 0) return longest;
  }
  return {text.size(), text.size(), -1};
}

void AddedTokenMatcher::split(std::string_view text, std::vector<Part>& parts) const {
  size_t done = 0;
  const auto add_plain_until = [&](size_t end) {
    if (end > done) parts.push_back({text.substr(done, end - done)});
  };
  for (size_t from = 0; from < text.size();) {
    const Found found = find(text, from);
    if (found.token < 0) break;
    from = found.end;
    const AddedToken& token = tokens_[static_cast<size_t>(found.token)];
    add_plain_until(token.strip_left ? skip_space_back(text, done, found.begin) : found.begin);
    parts.push_back({text.substr(found.begin, found.end - found.begin), token.id});
    done = token.strip_right ? skip_space(text, found.end) : found.end;
  }
  add_plain_until(text.size());
}

}  // namespace farskip
