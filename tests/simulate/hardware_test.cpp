#include "farskip/simulate/hardware.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "farskip/base/error.h"
#include "farskip/base/files.h"
#include "farskip/base/random.h"

namespace farskip {
namespace {

using Json = nlohmann::json;

std::string text_of(const std::string& name) {
  return read_file(FARSKIP_SOURCE_DIR "/data/hardware/" + name + ".json");
}

// The message of the ConfigError or FileError that the text earns.
std::string refusal(const std::string& text) {
  try {
    parse_hardware(text, "test.json");
  } catch (const Error& error) {
    return error.what();
  }
  return "accepted";
}

TEST(Hardware, EveryBuiltInProfileLoadsUnderItsName) {
  const std::vector<std::string> names = hardware_names();
  EXPECT_EQ(names, (std::vector<std::string>{"b200", "cpu-2core", "gb200-nvl72", "h100-sxm", "h200",
                                             "h800", "mi300x", "mi325x", "mi355x"}));
  const std::string sources = read_file(FARSKIP_SOURCE_DIR "/data/hardware/SOURCES.md");
  for (const std::string& name : names) {
    const HardwareProfile profile = load_hardware(name);
    EXPECT_EQ(profile.name, name);
    EXPECT_FALSE(profile.description.empty());
    for (const auto* rates : {&profile.gemm, &profile.grouped_gemm, &profile.attention}) {
      for (const auto& [dtype, figure] : *rates) {
        EXPECT_NE(sources.find('`' + figure.source + '`'), std::string::npos) << figure.source;
        if (figure.provenance == Provenance::assumed) {
          EXPECT_FALSE(figure.note.empty()) << name;
        }
      }
    }
    EXPECT_LE(profile.grouped_gemm_rate(DType::bfloat16), profile.gemm_rate(DType::bfloat16));
    EXPECT_LE(profile.attention_rate(DType::float16), profile.gemm_rate(DType::bfloat16));
    EXPECT_GE(profile.contention_slowdown.value, 1);
  }
}

TEST(Hardware, H200Figures) {
  const HardwareProfile profile = load_hardware("h200");
  EXPECT_DOUBLE_EQ(profile.gemm_rate(DType::bfloat16), 794.5e12);
  EXPECT_DOUBLE_EQ(profile.gemm_rate(DType::float8_e4m3), 1453.4e12);
  EXPECT_DOUBLE_EQ(profile.attention_rate(DType::bfloat16), 522e12);
  EXPECT_DOUBLE_EQ(profile.memory_bandwidth.value, 4150e9);
  EXPECT_DOUBLE_EQ(profile.dispatch_bandwidth.value, 277e9);
  EXPECT_DOUBLE_EQ(profile.nic_bandwidth.value, 45e9);
  EXPECT_EQ(profile.domain_ranks, 8);
  EXPECT_EQ(profile.tables.size(), 12u);
  EXPECT_DOUBLE_EQ(load_hardware("mi300x").dispatch_bandwidth.value, 307e9 * 7 / 8);
  EXPECT_DOUBLE_EQ(load_hardware("mi300x").combine_bandwidth.value, 330e9 * 7 / 8);
  EXPECT_EQ(load_hardware("gb200-nvl72").domain_ranks, 72);
}

TEST(Hardware, MissingRateNamesProfileAndField) {
  try {
    load_hardware("h200").attention_rate(DType::float8_e4m3);
    FAIL();
  } catch (const ConfigError& error) {
    EXPECT_NE(std::string(error.what()).find("h200"), std::string::npos);
    EXPECT_NE(std::string(error.what()).find("attention_tflop_per_s"), std::string::npos);
  }
}

TEST(Hardware, UnknownNameListsNames) {
  try {
    load_hardware("h201");
    FAIL();
  } catch (const ConfigError& error) {
    EXPECT_NE(std::string(error.what()).find("h100-sxm, h200"), std::string::npos);
  }
  EXPECT_THROW(load_hardware("./no/such/file.json"), FileError);
  EXPECT_THROW(load_hardware(""), ConfigError);
}

TEST(Hardware, FileWorksAsAName) {
  EXPECT_EQ(load_hardware(FARSKIP_SOURCE_DIR "/data/hardware/h800.json").name, "h800");
}

TEST(Hardware, WrongFieldsAreNamed) {
  const Json good = Json::parse(text_of("h200"));
  const auto with = [&](const char* pointer, const Json& value) {
    Json bad = good;
    bad[Json::json_pointer(pointer)] = value;
    return refusal(bad.dump());
  };
  const auto mentions = [](const std::string& message, const char* what) {
    return message.find(what) != std::string::npos;
  };
  EXPECT_TRUE(mentions(with("/version", 2), "version 2"));
  EXPECT_TRUE(mentions(with("/nic_gbps", 1), "nic_gbps"));
  EXPECT_TRUE(mentions(with("/gemm_tflop_per_s/bf17", 1), "bf17"));
  EXPECT_TRUE(mentions(with("/gemm_tflop_per_s", Json::object()), "gemm_tflop_per_s"));
  EXPECT_TRUE(mentions(with("/gemm_tflop_per_s/bf16/value", 0), "bf16: value"));
  EXPECT_TRUE(mentions(with("/gemm_tflop_per_s/bf16/value", 1e300), "bf16: value"));
  EXPECT_TRUE(mentions(with("/memory_gb_per_s", 4150), "memory_gb_per_s"));
  EXPECT_TRUE(mentions(with("/nic_gb_per_s/provenance", "guessed"), "guessed"));
  EXPECT_TRUE(mentions(with("/latency_us/dispatch/value", -1), "latency_us: dispatch"));
  EXPECT_TRUE(mentions(with("/contention_slowdown/value", 0.9), "at least 1"));
  EXPECT_TRUE(mentions(with("/scale_up/domain_ranks", 0), "domain_ranks"));
  EXPECT_TRUE(mentions(with("/scale_up/domain_ranks", 1.5), "domain_ranks"));
  EXPECT_TRUE(mentions(with("/collective_tables", Json::object()), "collective_tables"));
  EXPECT_TRUE(mentions(with("/collective_tables/3/op", "scatter"), "collective_tables[3]"));
  EXPECT_TRUE(mentions(with("/collective_tables/0/ranks", 1), "collective_tables[0]"));
  EXPECT_TRUE(mentions(with("/collective_tables/0/bytes/1", 1), "collective_tables[0]"));
  EXPECT_TRUE(mentions(with("/collective_tables/0/latency_us", Json::array({1})), "tables[0]"));
  EXPECT_EQ(with("/latency_us/dispatch/value", 0), "accepted");

  for (const auto& [field, value] : good.items()) {
    if (field == "description" || field == "collective_tables") continue;
    Json bad = good;
    bad.erase(field);
    EXPECT_TRUE(mentions(refusal(bad.dump()), field.c_str())) << field;
  }
}

TEST(Hardware, DamagedTextIsRefusedOrRead) {
  const std::string good = text_of("mi300x");
  Random random(5);
  for (int round = 0; round < 600; ++round) {
    std::string bad = good;
    if (round % 2 == 0) bad.resize(random.below(bad.size()));
    for (uint64_t i = random.below(4); i > 0 && !bad.empty(); --i) {
      bad[random.below(bad.size())] = static_cast<char>(random.below(256));
    }
    refusal(bad);  // any other exception fails the test
  }
  EXPECT_NE(refusal("[]"), "accepted");
  EXPECT_NE(refusal(""), "accepted");
  EXPECT_NE(refusal("null"), "accepted");
}

TEST(Hardware, LinearModelKeepsRatesOnly) {
  const HardwareProfile profile = linear_model(load_hardware("h200"));
  EXPECT_EQ(profile.dispatch_latency.value, 0);
  EXPECT_EQ(profile.kernel_launch.value, 0);
  EXPECT_EQ(profile.contention_slowdown.value, 1);
  EXPECT_TRUE(profile.tables.empty());
  EXPECT_EQ(profile.grouped_gemm_rate(DType::bfloat16), profile.gemm_rate(DType::bfloat16));
}

}  // namespace
}  // namespace farskip
