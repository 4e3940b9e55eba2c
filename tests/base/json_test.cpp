#include "farskip/base/json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "error_of.h"
#include "farskip/base/error.h"
#include "farskip/base/random.h"
#include "temporary_folder.h"

namespace farskip {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

std::string parse_error(std::string_view text) {
  return error_of<FileError>([&] { parse_json(text, "c.json"); });
}

TEST(ParseJson, NamesPlaceLineAndColumn) {
  EXPECT_THAT(parse_error("{\n  \"a\": 1,\n  \"b\": x\n}"), HasSubstr("c.json: line 3, column 8"));
  EXPECT_THAT(parse_error(""), HasSubstr("c.json: line 1, column 1: not valid JSON"));
  EXPECT_THAT(parse_error("{\"a\": 1"), HasSubstr("line 1, column 8"));
  EXPECT_THAT(parse_error("{} trailing"), HasSubstr("line 1, column 6"));
  EXPECT_THAT(parse_error("\"\xff\""), HasSubstr("not valid JSON"));
}

TEST(ParseJson, RefusesWhatTheParserLetsThrough) {
  EXPECT_THAT(parse_error(R"({"a": 1, "b": {"a": 2}, "a": 3})"), HasSubstr("key twice"));
  EXPECT_NO_THROW(parse_json(R"([{"a": 1}, {"a": 2}])", "x"));
  EXPECT_THAT(parse_error("1e999"), HasSubstr("number overflow"));
  EXPECT_THAT(parse_error(std::string(100000, '[')), HasSubstr("nested too deeply"));
  std::string deep;
  for (int i = 0; i < 100000; ++i) deep += "{\"a\":";
  EXPECT_THAT(parse_error(deep), HasSubstr("nested too deeply"));
}

TEST(ParseJson, AnyDamageGivesFileErrorOrAValue) {
  const std::string sound = R"({"layers": [1, 2.5e3, -7], "name": "\u00e9x", "deep": {"t": true}})";
  Random random(7);
  for (int round = 0; round < 20000; ++round) {
    std::string damaged = sound;
    for (uint64_t i = 0; i <= random.below(3); ++i) {
      damaged[random.below(damaged.size())] = static_cast<char>(random.below(256));
    }
    damaged.resize(random.below(damaged.size() + 1));
    try {
      parse_json(damaged, "x");
    } catch (const FileError&) {
    }
  }
}

TEST(ReadJsonFile, RoundTripAndErrorsNameTheFile) {
  const TemporaryFolder folder;
  const auto path = folder.path() / "c.json";
  const Json json = {{"a", 1}, {"b", {1.5, "x"}}};
  write_json_file(path, json);
  EXPECT_EQ(read_json_file(path), json);
  EXPECT_EQ(read_file(path).back(), '\n');
  write_file_atomically(path, "{");
  EXPECT_THAT(error_of<FileError>([&] { read_json_file(path); }), HasSubstr(path.string()));
}

TEST(JsonFields, GiveTypedValues) {
  const Json json = parse_json(
      R"({"i": -3, "u": 18446744073709551615, "d": 2.5, "b": true, "s": "x", "n": null,
          "vi": [1, 2], "vd": [1, 2.5], "vs": ["a"], "vb": [true, false], "o": {"k": 1}})",
      "t");
  EXPECT_EQ(require<int>(json, "i", "t"), -3);
  EXPECT_EQ(require<int64_t>(json, "i", "t"), -3);
  EXPECT_EQ(require<uint64_t>(json, "u", "t"), 18446744073709551615U);
  EXPECT_EQ(require<double>(json, "d", "t"), 2.5);
  EXPECT_EQ(require<double>(json, "i", "t"), -3.0);
  EXPECT_EQ(require<bool>(json, "b", "t"), true);
  EXPECT_EQ(require<std::string>(json, "s", "t"), "x");
  EXPECT_EQ(require<Json>(json, "o", "t")["k"], 1);
  EXPECT_THAT(require<std::vector<int64_t>>(json, "vi", "t"), ElementsAre(1, 2));
  EXPECT_THAT(require<std::vector<double>>(json, "vd", "t"), ElementsAre(1, 2.5));
  EXPECT_THAT(require<std::vector<std::string>>(json, "vs", "t"), ElementsAre("a"));
  EXPECT_THAT(require<std::vector<bool>>(json, "vb", "t"), ElementsAre(true, false));
  EXPECT_EQ(optional<int>(json, "i", "t"), -3);
  EXPECT_EQ(optional<int>(json, "n", "t"), std::nullopt);
  EXPECT_EQ(optional<int>(json, "absent", "t"), std::nullopt);
}

template <typename T>
std::string field_error(const Json& json, const std::string& field) {
  const std::string message =
      error_of<ConfigError>([&] { require<T>(json, field, "config.json"); });
  EXPECT_THAT(message, HasSubstr("config.json: " + field + ": "));
  return message;
}

TEST(JsonFields, ErrorsNameFileFieldExpectedAndFound) {
  const Json json = parse_json(
      R"({"f": 1.0, "s": "12", "n": null, "big": 3000000000, "huge": 9223372036854775808,
          "neg": -1, "v": [1, "x"], "t": true})",
      "config.json");
  EXPECT_THAT(field_error<int>(json, "absent"),
              AllOf(HasSubstr("missing field"), HasSubstr("expected an integer")));
  EXPECT_THAT(field_error<int>(json, "n"), HasSubstr("found null"));
  EXPECT_THAT(field_error<int>(json, "f"), HasSubstr("found 1.0"));
  EXPECT_THAT(field_error<int>(json, "s"), HasSubstr("found \"12\""));
  EXPECT_THAT(field_error<int>(json, "t"), HasSubstr("found true"));
  EXPECT_THAT(field_error<int>(json, "big"), HasSubstr("found 3000000000"));
  EXPECT_THAT(field_error<int64_t>(json, "huge"), HasSubstr("found 9223372036854775808"));
  EXPECT_THAT(field_error<uint64_t>(json, "neg"), HasSubstr("at least 0"));
  EXPECT_THAT(field_error<std::vector<int64_t>>(json, "v"), HasSubstr("each element an integer"));
  EXPECT_THAT(field_error<std::string>(json, "t"), HasSubstr("expected a string"));
  EXPECT_THROW(optional<int>(json, "s", "x"), ConfigError);
  EXPECT_THAT(error_of<ConfigError>([&] { require<int>(json["v"], "k", "config.json"); }),
              HasSubstr("expected an object"));
}

TEST(Abbreviate, CutsLongValuesBetweenCharacters) {
  EXPECT_EQ(abbreviate(Json(3)), "3");
  std::string accents;
  for (int i = 0; i < 50; ++i) accents += "é";
  const std::string text = abbreviate(Json(accents));
  EXPECT_LE(text.size(), 63U);
  EXPECT_TRUE(text.ends_with("é..."));
}

}  // namespace
}  // namespace farskip
