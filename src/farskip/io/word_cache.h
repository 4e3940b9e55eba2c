#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace farskip {

// Ids of words met before: most words of a text are. Bounded; when it is full it starts over. One
// thread.
class WordCache {
 public:
  // The ids, until the next put; nothing for a word that is not there.
  std::optional<std::span<const int32_t>> find(std::string_view word) const {
    const auto found = places_.find(word);
    if (found == places_.end()) return std::nullopt;
    return std::span(ids_).subspan(found->second.begin, found->second.count);
  }

  void put(std::string_view word, std::span<const int32_t> ids) {
    if (word.size() > longest_word) return;
    if (places_.size() >= most_words) {
      places_.clear();
      ids_.clear();
    }
    places_.emplace(word, Place{ids_.size(), ids.size()});
    ids_.insert(ids_.end(), ids.begin(), ids.end());
  }

 private:
  static constexpr size_t longest_word = 64;  // bytes
  static constexpr size_t most_words = size_t{1} << 18;

  struct Place {
    size_t begin = 0, count = 0;  // of ids_
  };
  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
  };

  std::unordered_map<std::string, Place, Hash, std::equal_to<>> places_;
  std::vector<int32_t> ids_;
};

}  // namespace farskip
