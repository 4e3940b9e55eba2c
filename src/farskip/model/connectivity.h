#pragma once

#include <array>
#include <compare>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "farskip/model/config.h"

namespace farskip {

// A term of the residual stream. Layers count from 1. A dense MLP counts as shared.
enum class Source { attention, shared, routed };
struct Contribution {
  int layer = 0;
  Source source = Source::attention;
  auto operator<=>(const Contribution&) const = default;  // canonical order of summation
};

// Who reads the residual stream in a layer. routing_weights follows moe unless said otherwise.
enum class Reader { attention, moe, shared, routing_weights };
inline constexpr int reader_count = 4;

// For each layer and reader: which earlier contributions it does not see. Immutable, so safe from
// any thread. A reader of layer k may see every contribution of layers before k; moe, shared and
// routing_weights also the attention of layer k. Contributions that a layer does not make
// (LayerKinds) are never listed, and a reader that a layer does not have misses nothing.
//
// Written as JSON:
//   {"format": "farskip-connectivity", "version": 1, "name": "farskip", "layers": 2,
//    "missing": [{"moe": ["attention 1"], "shared": ["attention 1"]},
//                {"attention": ["routed 1"], "moe": ["attention 2"], "shared": ["attention 2"]}]}
// One object per layer; a reader left out misses nothing, except routing_weights, which misses
// what moe misses. A contribution is its source and its layer.
class Connectivity {
 public:
  // standard, farskip, attention-only, mlp-only, fresh-shared, ladder, depth-D, last-N, last-N%,
  // and last-N:PRESET / last-N%:PRESET (PRESET in the last layers, standard before; N% rounds up).
  // D and N from 1 to the layer count, percentages from 1 to 100.
  // Throws ConfigError listing the known names.
  static Connectivity preset(std::string_view name, const LayerKinds& layers);

  // Reads the format above. Throws ConfigError: unknown or repeated contribution, one that does
  // not exist yet where it is read, one of a layer that does not make it, wrong layer count,
  // unknown field, reader, format or version.
  static Connectivity from_json(const nlohmann::json& json, const LayerKinds& layers);
  nlohmann::json to_json() const;

  // `name_or_file` is a preset name, or the path of a JSON file (ends in .json). Throws
  // ConfigError, and FileError for a file that can not be read.
  static Connectivity load(const std::string& name_or_file, const LayerKinds& layers);

  const std::string& name() const { return name_; }
  int layer_count() const { return static_cast<int>(missing_.size()); }
  const LayerKinds& layers() const { return layers_; }

  // What the reader does not see, in canonical order. Layer from 1 to layer_count(), else
  // ConfigError. Valid as long as this object.
  std::span<const Contribution> missing(int layer, Reader reader) const;
  // What the reader sees besides the embedding, in canonical order; nothing if the layer does not
  // have the reader.
  std::vector<Contribution> seen(int layer, Reader reader) const;

  // The same function of the same layers, whatever the names.
  bool operator==(const Connectivity& other) const {
    return layers_ == other.layers_ && missing_ == other.missing_;
  }

 private:
  using LayerMissing = std::array<std::vector<Contribution>, reader_count>;
  Connectivity(std::string name, LayerKinds layers)
      : name_(std::move(name)), layers_(std::move(layers)), missing_(layers_.size()) {}

  std::string name_;
  LayerKinds layers_;
  std::vector<LayerMissing> missing_;  // [layer - 1][reader]
};

// "attention", "shared", "routed"; "attention", "moe", "shared", "routing_weights".
std::string_view to_string(Source source);
std::string_view to_string(Reader reader);

// True if a layer of this kind has the reader: attention always, moe and routing_weights with
// routed experts, shared with shared experts or a dense MLP.
bool has_reader(const LayerKind& layer, Reader reader);
// True if a layer of this kind makes the contribution.
bool makes(const LayerKind& layer, Source source);

// Names of the presets without a parameter, for help texts.
std::span<const std::string_view> connectivity_presets();

}  // namespace farskip
