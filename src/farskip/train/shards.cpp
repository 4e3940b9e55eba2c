#include "farskip/train/shards.h"

#include <algorithm>
#include <charconv>
#include <functional>
#include <numeric>
#include <tuple>
#include <utility>

#include "farskip/base/error.h"

namespace farskip {
namespace {

void check_index(const std::string& what, int64_t index, int64_t count) {
  if (index >= 0 && index < count) return;
  throw ConfigError("no such " + what, {.where = "shards",
                                        .expected = "0 to " + std::to_string(count - 1),
                                        .found = std::to_string(index)});
}

void add_shared(ShardList& list, const FlatParameter& parameter) {
  list.push_back({.name = parameter.name, .count = parameter.elements});
}

void add_experts(ShardList& list, const FlatParameter& parameter, const std::vector<int>& experts) {
  for (const int expert : experts) {
    list.push_back({.name = parameter.name, .expert = expert, .count = parameter.elements});
  }
}

// Reads what to_string wrote behind a name; every step says whether the text went on as expected.
class EntryReader {
 public:
  explicit EntryReader(std::string_view text) : rest_(text) {}

  bool take(char sign) {
    if (!rest_.starts_with(sign)) return false;
    rest_.remove_prefix(1);
    return true;
  }

  // Digits as std::to_string writes them.
  template <typename Integer>
  bool take(Integer& value) {
    const auto [end, error] = std::from_chars(rest_.data(), rest_.data() + rest_.size(), value);
    const std::string_view digits = rest_.substr(0, static_cast<size_t>(end - rest_.data()));
    if (error != std::errc{} || value < 0 || digits != std::to_string(value)) return false;
    rest_.remove_prefix(digits.size());
    return true;
  }

  bool at_end() const { return rest_.empty(); }

 private:
  std::string_view rest_;
};

}  // namespace

int64_t elements_of(std::span<const ShardEntry> list) {
  return std::transform_reduce(list.begin(), list.end(), int64_t{0}, std::plus<>(),
                               [](const ShardEntry& entry) { return entry.count; });
}

std::string to_string(const ShardEntry& entry) {
  const std::string expert = entry.expert < 0 ? "" : "[" + std::to_string(entry.expert) + "]";
  return entry.name + expert + "[" + std::to_string(entry.first) + ":" +
         std::to_string(entry.end()) + "]";
}

std::optional<ShardEntry> parse_shard_entry(std::string_view text) {
  const size_t bracket = text.find('[');
  if (bracket == 0 || bracket == std::string_view::npos) return std::nullopt;
  ShardEntry entry{.name = std::string(text.substr(0, bracket))};
  EntryReader reader(text.substr(bracket));
  if (std::count(text.begin(), text.end(), '[') == 2) {
    if (!reader.take('[') || !reader.take(entry.expert) || !reader.take(']')) return std::nullopt;
  }
  int64_t end = 0;
  const bool complete = reader.take('[') && reader.take(entry.first) && reader.take(':') &&
                        reader.take(end) && reader.take(']') && reader.at_end();
  if (!complete || end < entry.first) return std::nullopt;
  entry.count = end - entry.first;
  return entry;
}

ShardList held_entries(std::span<const FlatParameter> parameters, const Placement& placement,
                       int rank) {
  check_index("rank", rank, placement.ranks());
  ShardList list;
  for (const FlatParameter& parameter : parameters) {
    if (parameter.of_experts) {
      add_experts(list, parameter, placement.experts_of(rank));
    } else {
      add_shared(list, parameter);
    }
  }
  return list;
}

BucketPart cut_bucket(std::span<const ShardEntry> bucket, int parts, int part, int64_t unit) {
  check_index("part", part, parts);
  BucketPart result;
  const int64_t pieces = parts * unit;
  result.length = (elements_of(bucket) + pieces - 1) / pieces * unit;
  result.begin = result.length * part;
  int64_t place = 0;  // of the entry in the bucket
  for (const ShardEntry& entry : bucket) {
    const int64_t first = std::max(result.begin, place);
    const int64_t end = std::min(result.begin + result.length, place + entry.count);
    if (first < end) {
      ShardEntry piece = entry;
      piece.first += first - place;
      piece.count = end - first;
      result.entries.push_back(std::move(piece));
    }
    place += entry.count;
  }
  return result;
}

OptimizerShard optimizer_shard(std::span<const FlatParameter> parameters,
                               const Placement& placement, int data_parallel, int rank) {
  const int expert_parallel = placement.ranks();
  check_index("rank", rank, int64_t{expert_parallel} * data_parallel);
  ShardList shared, experts;
  for (const FlatParameter& parameter : parameters) {
    if (parameter.of_experts) {
      add_experts(experts, parameter, placement.experts_of(rank % expert_parallel));
    } else {
      add_shared(shared, parameter);
    }
  }
  return {cut_bucket(shared, expert_parallel * data_parallel, rank),
          cut_bucket(experts, data_parallel, rank / expert_parallel)};
}

SavedShards::SavedShards(std::span<const ShardList> saved) : lists_(saved.size()) {
  for (size_t file = 0; file < saved.size(); ++file) {
    for (size_t i = 0; i < saved[file].size(); ++i) {
      const ShardEntry& entry = saved[file][i];
      if (entry.count == 0) continue;
      runs_[{entry.name, entry.expert}].push_back({entry.first, entry.end(), file, i});
    }
  }
  for (auto& [parameter, runs] : runs_) {
    std::sort(runs.begin(), runs.end(), [](const Run& a, const Run& b) {
      return std::tuple(a.first, -a.end, a.file, a.entry) <
             std::tuple(b.first, -b.end, b.file, b.entry);
    });
  }
}

// The run that has `element` and reaches farthest; null where there is none.
const SavedShards::Run* SavedShards::find(const ShardEntry& of, int64_t element) const {
  const auto runs = runs_.find({of.name, of.expert});
  if (runs == runs_.end()) return nullptr;
  const Run* best = nullptr;
  for (const Run& run : runs->second) {
    if (run.first > element) break;
    if (run.end > element && (best == nullptr || run.end > best->end)) best = &run;
  }
  return best;
}

std::vector<ShardCopy> SavedShards::plan(std::span<const ShardEntry> needed) const {
  std::vector<ShardCopy> copies;
  for (size_t i = 0; i < needed.size(); ++i) {
    const ShardEntry& entry = needed[i];
    for (int64_t element = entry.first; element < entry.end();) {
      const Run* const run = find(entry, element);
      if (run == nullptr) {
        throw ConfigError("saved state lacks a part of a parameter",
                          {.where = to_string(entry),
                           .expected = "element " + std::to_string(element),
                           .found = std::to_string(lists_) + " shards without it",
                           .hint = "the state may be of another model, or shards are missing"});
      }
      const int64_t count = std::min(run->end, entry.end()) - element;
      copies.push_back({.file = run->file,
                        .from = {run->entry, element - run->first},
                        .to = {i, element - entry.first},
                        .count = count});
      element += count;
    }
  }
  return copies;
}

}  // namespace farskip
