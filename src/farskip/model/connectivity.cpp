#include "farskip/model/connectivity.h"

#include <algorithm>
#include <charconv>
#include <optional>

#include "farskip/base/error.h"

namespace farskip {
namespace {

// A preset as numbers: how many of the nearest contributions of each kind a reader lacks.
struct Pattern {
  int attention_lacks_routed = 0;  // routed_{k-1} .. routed_{k-n}
  int attention_lacks_shared = 0;  // S_{k-1} .. S_{k-n}
  int moe_lacks_attention = 0;     // A_k .. A_{k-n+1}
  int shared_lacks_attention = 0;
};

struct NamedPattern {
  std::string_view name;
  Pattern pattern;
};

constexpr std::array<NamedPattern, 6> patterns = {{
    {"standard", {0, 0, 0, 0}},
    {"farskip", {1, 0, 1, 1}},
    {"attention-only", {1, 0, 0, 0}},
    {"mlp-only", {0, 0, 1, 1}},
    {"fresh-shared", {1, 0, 1, 0}},
    {"ladder", {1, 1, 1, 1}},
}};

constexpr auto pattern_names = [] {
  std::array<std::string_view, patterns.size()> names;
  for (size_t i = 0; i < patterns.size(); ++i) names[i] = patterns[i].name;
  return names;
}();

// A table that lists more than this is a mistake, and would fill the memory.
constexpr int64_t max_listed = 10'000'000;

[[noreturn]] void refuse(std::string_view name, const std::string& why, const std::string& found) {
  std::string known;
  for (const std::string_view each : pattern_names) known += std::string(each) + ", ";
  throw ConfigError(why, {.where = "connectivity " + std::string(name.substr(0, 80)),
                          .expected = known + "depth-D, last-N, last-N%, last-N:PRESET or a file "
                                              "that ends in .json",
                          .found = found});
}

// A number from 1 to `most`, in digits only.
int parse_number(std::string_view digits, int most, std::string_view name) {
  int value = 0;
  const auto [end, failure] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  const bool number = failure == std::errc() && end == digits.data() + digits.size();
  if (!number || digits.front() == '-' || value < 1 || value > most) {
    refuse(name, "wants a number from 1 to " + std::to_string(most),
           digits.empty() ? "nothing" : std::string(digits.substr(0, 40)));
  }
  return value;
}

std::optional<std::string_view> after(std::string_view name, std::string_view prefix) {
  if (!name.starts_with(prefix)) return std::nullopt;
  return name.substr(prefix.size());
}

Pattern parse_pattern(std::string_view part, int layers, std::string_view name) {
  for (const NamedPattern& each : patterns) {
    if (each.name == part) return each.pattern;
  }
  if (const auto digits = after(part, "depth-")) {
    const int depth = parse_number(*digits, layers, name);
    if (int64_t{depth} * layers > max_listed) {
      refuse(name, "lists too many contributions", std::to_string(depth) + " in each layer");
    }
    return {depth, 0, depth, depth};
  }
  refuse(name, "unknown connectivity", std::string(part.substr(0, 80)));
}

struct Selection {
  int changed_layers;  // at the end; standard before
  Pattern pattern;
};

Selection parse_preset(std::string_view name, int layers) {
  const auto rest = after(name, "last-");
  if (!rest) return {layers, parse_pattern(name, layers, name)};
  const size_t colon = rest->find(':');
  std::string_view number = rest->substr(0, colon);
  const std::string_view inner =
      colon == std::string_view::npos ? "farskip" : rest->substr(colon + 1);
  int last = 0;
  if (number.ends_with('%')) {
    number.remove_suffix(1);
    last = static_cast<int>((int64_t{parse_number(number, 100, name)} * layers + 99) / 100);
  } else {
    last = parse_number(number, layers, name);
  }
  return {last, parse_pattern(inner, layers, name)};
}

// Adds (from, source) and the count - 1 layers before it, where they exist.
void list(const LayerKinds& layers, int from, int count, Source source,
          std::vector<Contribution>& out) {
  for (int layer = from; layer > std::max(0, from - count); --layer) {
    if (makes(layers[layer - 1], source)) out.push_back({layer, source});
  }
}

std::vector<Contribution> lacked(const LayerKinds& layers, int layer, Reader reader,
                                 const Pattern& pattern) {
  std::vector<Contribution> result;
  if (!has_reader(layers[layer - 1], reader)) return result;
  if (reader == Reader::attention) {
    list(layers, layer - 1, pattern.attention_lacks_routed, Source::routed, result);
    list(layers, layer - 1, pattern.attention_lacks_shared, Source::shared, result);
  } else {
    const int count =
        reader == Reader::shared ? pattern.shared_lacks_attention : pattern.moe_lacks_attention;
    list(layers, layer, count, Source::attention, result);
  }
  std::sort(result.begin(), result.end());
  return result;
}

}  // namespace

std::string_view to_string(Source source) {
  constexpr std::array<std::string_view, 3> names = {"attention", "shared", "routed"};
  return names.at(static_cast<size_t>(source));
}

std::string_view to_string(Reader reader) {
  constexpr std::array<std::string_view, reader_count> names = {"attention", "moe", "shared",
                                                                "routing_weights"};
  return names.at(static_cast<size_t>(reader));
}

bool has_reader(const LayerKind& layer, Reader reader) {
  if (reader == Reader::attention) return true;
  return reader == Reader::shared ? layer.shared : layer.routed;
}

bool makes(const LayerKind& layer, Source source) {
  if (source == Source::attention) return true;
  return source == Source::shared ? layer.shared : layer.routed;
}

std::span<const std::string_view> connectivity_presets() { return pattern_names; }

Connectivity Connectivity::preset(std::string_view name, const LayerKinds& layers) {
  Connectivity result{std::string(name), layers};
  const int count = result.layer_count();
  const Selection selection = parse_preset(name, count);
  for (int layer = count - selection.changed_layers + 1; layer <= count; ++layer) {
    for (int reader = 0; reader < reader_count; ++reader) {
      result.missing_[layer - 1][reader] =
          lacked(layers, layer, static_cast<Reader>(reader), selection.pattern);
    }
  }
  return result;
}

std::span<const Contribution> Connectivity::missing(int layer, Reader reader) const {
  if (layer < 1 || layer > layer_count()) {
    throw ConfigError("no such layer", {.where = "connectivity " + name_,
                                        .expected = "1 to " + std::to_string(layer_count()),
                                        .found = std::to_string(layer)});
  }
  return missing_[layer - 1][static_cast<size_t>(reader)];
}

std::vector<Contribution> Connectivity::seen(int layer, Reader reader) const {
  const std::span<const Contribution> lacking = missing(layer, reader);
  std::vector<Contribution> result;
  if (!has_reader(layers_[layer - 1], reader)) return result;
  const auto add = [&](Contribution each) {
    const bool absent = std::binary_search(lacking.begin(), lacking.end(), each);
    if (!absent && makes(layers_[each.layer - 1], each.source)) result.push_back(each);
  };
  for (int earlier = 1; earlier < layer; ++earlier) {
    for (const Source source : {Source::attention, Source::shared, Source::routed}) {
      add({earlier, source});
    }
  }
  if (reader != Reader::attention) add({layer, Source::attention});
  return result;
}

}  // namespace farskip
