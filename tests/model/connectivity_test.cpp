#include "farskip/model/connectivity.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <random>

#include "model_test_support.h"

namespace farskip {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr LayerKind dense = {.routed = false, .shared = true};
constexpr LayerKind moe = {.routed = true, .shared = true};
constexpr LayerKind no_shared = {.routed = true, .shared = false};
const LayerKinds mixed = {dense, moe, no_shared, moe, moe};

Contribution attention(int layer) { return {layer, Source::attention}; }
Contribution shared(int layer) { return {layer, Source::shared}; }
Contribution routed(int layer) { return {layer, Source::routed}; }

// The terms of R_k, or of R_k + A_k, without those that `without` names: the definitions of the
// presets, written with sets instead of patterns.
std::vector<Contribution> residual(const LayerKinds& layers, int k, bool own_attention,
                                   const std::vector<Contribution>& without) {
  std::vector<Contribution> terms;
  for (int j = 1; j < k; ++j) {
    terms.push_back(attention(j));
    if (layers[j - 1].shared) terms.push_back(shared(j));
    if (layers[j - 1].routed) terms.push_back(routed(j));
  }
  if (own_attention) terms.push_back(attention(k));
  std::erase_if(terms, [&](const Contribution& term) {
    return std::find(without.begin(), without.end(), term) != without.end();
  });
  return terms;
}

struct Expected {
  std::vector<Contribution> attention, moe, shared;  // what each reader sees
};

Expected expected_inputs(const std::string& name, const LayerKinds& layers, int k) {
  const auto full = residual(layers, k, false, {});
  const auto fresh = residual(layers, k, true, {});
  const auto partial = residual(layers, k, false, {routed(k - 1)});
  if (name == "standard") return {full, fresh, fresh};
  if (name == "farskip") return {partial, full, full};
  if (name == "attention-only") return {partial, fresh, fresh};
  if (name == "mlp-only") return {full, full, full};
  if (name == "fresh-shared") return {partial, full, fresh};
  if (name == "ladder") {
    return {residual(layers, k, false, {shared(k - 1), routed(k - 1)}), full, full};
  }
  const auto late = residual(layers, k, true, {attention(k), attention(k - 1)});
  return {residual(layers, k, false, {routed(k - 1), routed(k - 2)}), late, late};  // depth-2
}

TEST(Connectivity, PresetsReadWhatTheirDefinitionsSay) {
  for (const std::string name :
       {"standard", "farskip", "attention-only", "mlp-only", "fresh-shared", "ladder", "depth-2"}) {
    const Connectivity connectivity = Connectivity::preset(name, mixed);
    for (int k = 1; k <= static_cast<int>(mixed.size()); ++k) {
      SCOPED_TRACE(name + " layer " + std::to_string(k));
      const Expected expected = expected_inputs(name, mixed, k);
      EXPECT_EQ(connectivity.seen(k, Reader::attention), expected.attention);
      if (mixed[k - 1].routed) {
        EXPECT_EQ(connectivity.seen(k, Reader::moe), expected.moe);
        EXPECT_EQ(connectivity.seen(k, Reader::routing_weights), expected.moe);
      }
      if (mixed[k - 1].shared) {
        EXPECT_EQ(connectivity.seen(k, Reader::shared), expected.shared);
      }
    }
  }
}

TEST(Connectivity, MissingIsCanonicalAndLeavesOutWhatIsNotMade) {
  const Connectivity ladder = Connectivity::preset("ladder", mixed);
  EXPECT_THAT(ladder.missing(1, Reader::attention), IsEmpty());
  EXPECT_THAT(ladder.missing(2, Reader::attention), ElementsAre(shared(1)));
  EXPECT_THAT(ladder.missing(3, Reader::attention), ElementsAre(shared(2), routed(2)));
  EXPECT_THAT(ladder.missing(4, Reader::attention), ElementsAre(routed(3)));
  EXPECT_THAT(ladder.missing(1, Reader::moe), IsEmpty()) << "a dense layer has no moe reader";
  EXPECT_THAT(ladder.missing(3, Reader::shared), IsEmpty());
  EXPECT_THAT(ladder.missing(1, Reader::shared), ElementsAre(attention(1)));
  const Connectivity deep = Connectivity::preset("depth-3", mixed);
  EXPECT_THAT(deep.missing(5, Reader::attention), ElementsAre(routed(2), routed(3), routed(4)));
  EXPECT_THAT(deep.missing(5, Reader::moe), ElementsAre(attention(3), attention(4), attention(5)));
  EXPECT_THROW(deep.missing(0, Reader::moe), ConfigError);
  EXPECT_THROW(deep.seen(6, Reader::moe), ConfigError);
}

TEST(Connectivity, LastAppliesToTheLastLayersOnly) {
  const auto preset = [](const char* name) { return Connectivity::preset(name, mixed); };
  const Connectivity last = preset("last-2");
  EXPECT_THAT(last.missing(3, Reader::moe), IsEmpty());
  EXPECT_THAT(last.missing(4, Reader::attention), ElementsAre(routed(3)));
  EXPECT_THAT(last.missing(4, Reader::shared), ElementsAre(attention(4)));
  EXPECT_EQ(preset("last-50%"), preset("last-3")) << "2.5 layers round up";
  EXPECT_EQ(preset("last-1%"), preset("last-1"));
  EXPECT_EQ(preset("last-20%"), preset("last-1"));
  EXPECT_EQ(preset("last-21%"), preset("last-2"));
  EXPECT_EQ(preset("last-100%"), preset("farskip"));
  EXPECT_EQ(preset("last-5:fresh-shared"), preset("fresh-shared"));
  EXPECT_EQ(preset("last-40%:depth-2").missing(4, Reader::moe).size(), 2u);
  EXPECT_NE(preset("last-2:ladder"), preset("last-2"));
  EXPECT_EQ(preset("last-2:standard"), preset("standard"));
}

TEST(Connectivity, UnknownNamesAreRefusedWithTheKnownOnes) {
  for (const std::string name : {"",
                                 "farskipp",
                                 "Standard",
                                 "last-",
                                 "last-0",
                                 "last-6",
                                 "last--1",
                                 "last-+1",
                                 "last-1.5",
                                 "last-2x",
                                 "last- 2",
                                 "last-0%",
                                 "last-101%",
                                 "last-%",
                                 "last-2%%",
                                 "last-2:",
                                 "last-2:bad",
                                 "last-2:last-1",
                                 "last-99999999999",
                                 "depth-0",
                                 "depth--1",
                                 "depth-6",
                                 "depth-",
                                 "depth-a",
                                 "last-2:depth-0",
                                 "farskip "}) {
    const std::string error = config_error([&] { Connectivity::preset(name, mixed); });
    EXPECT_THAT(error, AllOf(HasSubstr("fresh-shared"), HasSubstr("last-N%"))) << name;
  }
  const LayerKinds many(100000, moe);
  EXPECT_THROW(Connectivity::preset("depth-100000", many), ConfigError) << "would fill the memory";
}

LayerKinds random_layers(std::mt19937& random) {
  LayerKinds layers(1 + random() % 12);
  for (LayerKind& layer : layers) layer = std::array{dense, moe, no_shared}[random() % 3];
  return layers;
}

void expect_valid(const Connectivity& connectivity) {
  const LayerKinds& layers = connectivity.layers();
  for (int k = 1; k <= connectivity.layer_count(); ++k) {
    for (int r = 0; r < reader_count; ++r) {
      const auto reader = static_cast<Reader>(r);
      const auto missing = connectivity.missing(k, reader);
      EXPECT_TRUE(std::is_sorted(missing.begin(), missing.end()));
      for (const Contribution& each : missing) {
        EXPECT_TRUE(has_reader(layers[k - 1], reader));
        EXPECT_TRUE(makes(layers.at(each.layer - 1), each.source));
        EXPECT_TRUE(each.layer < k || (each == attention(k) && reader != Reader::attention));
      }
    }
  }
}

TEST(ConnectivityProperty, PresetsOnRandomLayersAreValidAndSurviveJson) {
  std::mt19937 random(1);
  for (int round = 0; round < 200; ++round) {
    const LayerKinds layers = random_layers(random);
    const std::string count = std::to_string(layers.size());
    std::vector<std::string> names(connectivity_presets().begin(), connectivity_presets().end());
    const std::string some = std::to_string(1 + random() % layers.size());
    for (const std::string& each :
         {"depth-" + some, "last-" + some, "last-" + std::to_string(1 + random() % 100) + "%",
          "last-" + some + ":ladder"}) {
      names.push_back(each);
    }
    for (const std::string& name : names) {
      SCOPED_TRACE(name + " of " + count);
      const Connectivity connectivity = Connectivity::preset(name, layers);
      expect_valid(connectivity);
      const std::string text = connectivity.to_json().dump();
      const Connectivity read = Connectivity::from_json(nlohmann::json::parse(text), layers);
      EXPECT_EQ(read, connectivity);
      EXPECT_EQ(read.name(), name);
    }
    const Connectivity farskip = Connectivity::preset("farskip", layers);
    EXPECT_EQ(Connectivity::preset("depth-1", layers), farskip);
    EXPECT_EQ(Connectivity::preset("last-" + count, layers), farskip);
    EXPECT_EQ(Connectivity::preset("last-100%", layers), farskip);
  }
}

TEST(ConnectivityProperty, WithoutSharedExpertsSomePresetsAreFarskip) {
  for (size_t count = 1; count < 9; ++count) {
    const LayerKinds layers(count, no_shared);
    const Connectivity farskip = Connectivity::preset("farskip", layers);
    EXPECT_EQ(Connectivity::preset("fresh-shared", layers), farskip);
    EXPECT_EQ(Connectivity::preset("ladder", layers), farskip);
  }
  const LayerKinds with_shared(3, moe);
  EXPECT_NE(Connectivity::preset("fresh-shared", with_shared),
            Connectivity::preset("farskip", with_shared));
}

TEST(ConnectivityJson, RoutingWeightsFollowMoeUnlessGiven) {
  const LayerKinds layers(2, moe);
  nlohmann::json json = Connectivity::preset("farskip", layers).to_json();
  EXPECT_FALSE(json["missing"][1].contains("routing_weights"));
  json["missing"][1]["routing_weights"] = nlohmann::json::array();
  const Connectivity apart = Connectivity::from_json(json, layers);
  EXPECT_THAT(apart.missing(2, Reader::moe), ElementsAre(attention(2)));
  EXPECT_THAT(apart.missing(2, Reader::routing_weights), IsEmpty());
  EXPECT_EQ(Connectivity::from_json(apart.to_json(), layers), apart);
}

TEST(ConnectivityJson, WrongFilesAreRefusedWithTheReason) {
  const LayerKinds layers = {dense, moe, no_shared};
  const nlohmann::json good = Connectivity::preset("farskip", layers).to_json();
  const auto error = [&](const char* pointer, const nlohmann::json& value) {
    nlohmann::json json = good;
    json[nlohmann::json::json_pointer(pointer)] = value;
    return config_error([&] { Connectivity::from_json(json, layers); });
  };
  const auto list = [](auto... names) { return nlohmann::json::array({names...}); };
  EXPECT_EQ(error("/name", "other"), "");
  EXPECT_THAT(error("/format", "x"), HasSubstr("format"));
  EXPECT_THAT(error("/version", 2), HasSubstr("version"));
  EXPECT_THAT(error("/layers", 4), HasSubstr("layers"));
  EXPECT_THAT(error("/extra", 4), HasSubstr("extra"));
  EXPECT_THAT(error("/missing", list(1, 2)), HasSubstr("3 objects"));
  EXPECT_THAT(error("/missing/1", 7), HasSubstr("missing[1]"));
  EXPECT_THAT(error("/missing/1/embedding", list("routed 1")), HasSubstr("unknown reader"));
  EXPECT_THAT(error("/missing/1/moe", "attention 2"), HasSubstr("missing[1].moe"));
  EXPECT_THAT(error("/missing/1/moe", list(3)), HasSubstr("strings"));
  for (const char* bad : {"", "routed", "routed ", "routed x", "routed 1x", "mlp 1", "Routed 1",
                          "routed  1", "routed 99999999999"}) {
    EXPECT_THAT(error("/missing/2/attention", list(bad)), HasSubstr("unknown contribution")) << bad;
  }
  EXPECT_THAT(error("/missing/2/attention", list("routed 0")), HasSubstr("no such layer"));
  EXPECT_THAT(error("/missing/2/attention", list("routed -1")), HasSubstr("no such layer"));
  EXPECT_THAT(error("/missing/2/attention", list("routed 4")), HasSubstr("no such layer"));
  EXPECT_THAT(error("/missing/2/attention", list("attention 3")), HasSubstr("not exist yet"));
  EXPECT_THAT(error("/missing/1/moe", list("shared 2")), HasSubstr("not exist yet"));
  EXPECT_THAT(error("/missing/1/moe", list("attention 3")), HasSubstr("not exist yet"));
  EXPECT_THAT(error("/missing/1/attention", list("routed 1")), HasSubstr("makes no"));
  EXPECT_THAT(error("/missing/0/moe", list("attention 1")), HasSubstr("no such reader"));
  EXPECT_THAT(error("/missing/2/shared", list("attention 1")), HasSubstr("no such reader"));
  EXPECT_THAT(error("/missing/2/attention", list("routed 2", "routed 2")), HasSubstr("twice"));
  EXPECT_EQ(error("/missing/2/attention", list("routed 2", "shared 1", "attention 1")), "");
  for (const char* text : {"[]", "null", "5", "{}"}) {
    EXPECT_THROW(Connectivity::from_json(nlohmann::json::parse(text), layers), ConfigError);
  }
}

TEST(ConnectivityJson, LoadTakesNamesAndFiles) {
  const std::string path = ::testing::TempDir() + "farskip-connectivity-test.json";
  const Connectivity fresh = Connectivity::preset("fresh-shared", mixed);
  std::ofstream(path) << fresh.to_json().dump(2);
  EXPECT_EQ(Connectivity::load(path, mixed), fresh);
  EXPECT_EQ(Connectivity::load("fresh-shared", mixed), fresh);
  const LayerKinds other(2, moe);
  EXPECT_THAT(config_error([&] { Connectivity::load(path, other); }),
              AllOf(HasSubstr(path), HasSubstr("layers")));
  std::ofstream(path) << "{\"format\": ";
  EXPECT_THROW(Connectivity::load(path, mixed), FileError);
  std::remove(path.c_str());
  EXPECT_THROW(Connectivity::load(path, mixed), FileError);
}

}  // namespace
}  // namespace farskip
