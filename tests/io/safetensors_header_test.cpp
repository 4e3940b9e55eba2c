#include "farskip/io/safetensors_header.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "farskip/base/error.h"
#include "farskip/base/random.h"

namespace farskip {
namespace {

using testing::HasSubstr;

std::string little_endian(uint64_t value) {
  std::string bytes;
  for (int i = 0; i < 8; ++i) bytes += static_cast<char>(value >> (8 * i));
  return bytes;
}

std::string make_file(const std::string& json, size_t data_bytes) {
  return little_endian(json.size()) + json + std::string(data_bytes, 'x');
}

SafetensorsHeader parse(const std::string& file) {
  return parse_safetensors_header(std::as_bytes(std::span(file)), "some.safetensors");
}

std::string error_of(const std::string& file) {
  try {
    parse(file);
  } catch (const FileError& error) {
    return error.what();
  }
  return "no error";
}

std::string entry(const std::string& name, const std::string& shape, int64_t begin, int64_t end) {
  return "\"" + name + R"(":{"dtype":"F32","shape":)" + shape + R"(,"data_offsets":[)" +
         std::to_string(begin) + "," + std::to_string(end) + "]}";
}

TEST(SafetensorsHeader, ReadsTensorsInTheOrderOfTheirBytes) {
  const std::string json = R"({"__metadata__":{"format":"pt"},)" + entry("late", "[2]", 4, 12) +
                           "," + entry("early", "[]", 0, 4) + "}   ";
  const SafetensorsHeader header = parse(make_file(json, 12));
  ASSERT_EQ(header.tensors.size(), 2u);
  EXPECT_EQ(header.tensors[0].name, "early");
  EXPECT_EQ(header.tensors[0].elements(), 1);
  EXPECT_EQ(header.tensors[1].begin, 8 + json.size() + 4);
  EXPECT_EQ(header.tensors[1].describe(), "F32 [2]");
  EXPECT_EQ(header.metadata.at("format"), "pt");
}

TEST(SafetensorsHeader, AcceptsNoTensorsAndEmptyTensors) {
  EXPECT_TRUE(parse(make_file("{}", 0)).tensors.empty());
  const auto header = parse(
      make_file("{" + entry("a", "[4]", 0, 16) + "," + entry("none", "[0, 7]", 16, 16) + "}", 16));
  EXPECT_EQ(header.tensors[1].elements(), 0);
}

struct Malformed {
  const char* label;
  std::string file;
  std::vector<std::string> says;
};

class SafetensorsHeaderMalformed : public testing::TestWithParam<Malformed> {};

TEST_P(SafetensorsHeaderMalformed, IsRefused) {
  const std::string message = error_of(GetParam().file);
  EXPECT_THAT(message, HasSubstr("some.safetensors"));
  for (const std::string& part : GetParam().says) EXPECT_THAT(message, HasSubstr(part));
}

std::string one(const std::string& fields) { return "{\"w\":{" + fields + "}}"; }

const std::string good = R"("dtype":"F32","shape":[2],"data_offsets":[0,8])";

const Malformed malformed[] = {
    {"empty", "", {"not a safetensors file", "found 0 bytes"}},
    {"seven_bytes", "1234567", {"at least 8 bytes"}},
    {"length_beyond_file", little_endian(100) + "{}", {"longer than the file", "100 bytes"}},
    {"length_over_limit", little_endian(100'000'001) + "{}", {"header too long"}},
    {"length_all_ones", std::string(8, '\xff') + "{}", {"header too long"}},
    {"not_json", make_file("{]", 0), {"not JSON"}},
    {"json_cut", make_file("{\"w\":", 0), {"not JSON"}},
    {"text_behind_json", make_file("{} {}", 0), {"not JSON"}},
    {"no_header", make_file("", 0), {"not JSON"}},
    {"not_utf8", make_file("{\"\xff\xfe\":{}}", 0), {"not JSON"}},
    {"array", make_file("[1]", 0), {"not a JSON object"}},
    {"number", make_file("7", 0), {"not a JSON object"}},
    {"tensor_is_number", make_file("{\"w\":3}", 0), {": w:", "an object"}},
    {"tensor_is_null", make_file("{\"w\":null}", 0), {": w:", "null"}},
    {"deep", make_file(std::string(100000, '['), 0), {"not a JSON object"}},
    {"deep_objects", make_file(R"({"w":{"shape":{"a":{}}}})", 0), {"an object"}},
    {"deep_shape", make_file(one(R"("dtype":"F32","shape":[[2]])"), 8), {"an array"}},
    {"no_dtype", make_file(one(R"("shape":[2],"data_offsets":[0,8])"), 8), {": w:", "2 of the"}},
    {"no_fields", make_file(one(""), 0), {"incomplete"}},
    {"unknown_field", make_file(one(good + R"(,"strides":[1])"), 8), {"unknown field", "strides"}},
    {"field_twice", make_file(one(good + R"(,"dtype":"F32")"), 8), {"field appears twice"}},
    {"unknown_dtype", make_file(one(R"("dtype":"F33")"), 8), {"unknown dtype", "BF16", "F33"}},
    {"dtype_is_number", make_file(one(R"("dtype":32)"), 8), {"wrong value of dtype"}},
    {"shape_is_text", make_file(one(R"("shape":"2")"), 8), {"wrong value of shape", "a string"}},
    {"shape_negative", make_file(one(R"("shape":[-2])"), 8), {"integers >= 0", "-2"}},
    {"shape_fraction", make_file(one(R"("shape":[2.5])"), 8), {"2.5"}},
    {"shape_beyond_int64", make_file(one(R"("shape":[9223372036854775808])"), 8), {"too large"}},
    {"shape_overflows",
     make_file(one(R"("dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,8])"), 8),
     {"shape overflows"}},
    {"bytes_overflow",
     make_file(one(R"("dtype":"F64","shape":[2305843009213693952],"data_offsets":[0,8])"), 8),
     {"shape overflows"}},
    {"sixty_five_dimensions",
     [] {
       std::string shape = "1";
       for (int i = 0; i < 64; ++i) shape += ",1";
       return make_file(one("\"shape\":[" + shape + "]"), 4);
     }(),
     {"too many dimensions"}},
    {"one_offset", make_file(one(R"("dtype":"F32","shape":[2],"data_offsets":[0])"), 8), {"fewer"}},
    {"three_offsets", make_file(one(R"("data_offsets":[0,8,8])"), 8), {"two numbers", "more"}},
    {"offset_negative", make_file(one(R"("data_offsets":[-8,0])"), 8), {"-8"}},
    {"offsets_backwards",
     make_file(one(R"("dtype":"F32","shape":[2],"data_offsets":[8,0])"), 8),
     {"run backwards", "[8, 0]"}},
    {"offset_outside", make_file("{" + entry("w", "[4]", 0, 16) + "}", 8), {"outside the file"}},
    {"size_too_small", make_file("{" + entry("w", "[4]", 0, 8) + "}", 8), {"16 bytes", "8 bytes"}},
    {"overlap",
     make_file("{" + entry("a", "[2]", 0, 8) + "," + entry("b", "[2]", 4, 12) + "}", 12),
     {": b:", "overlaps"}},
    {"same_place",
     make_file("{" + entry("a", "[2]", 0, 8) + "," + entry("b", "[2]", 0, 8) + "}", 8),
     {"overlaps"}},
    {"hole",
     make_file("{" + entry("a", "[2]", 0, 8) + "," + entry("b", "[2]", 12, 20) + "}", 20),
     {": b:", "hole"}},
    {"starts_late", make_file("{" + entry("a", "[2]", 4, 12) + "}", 12), {"hole"}},
    {"bytes_behind", make_file("{" + entry("a", "[2]", 0, 8) + "}", 9), {"behind the last", "9"}},
    {"data_without_tensors", make_file("{}", 1), {"behind the last"}},
    {"name_twice",
     make_file("{" + entry("a", "[2]", 0, 8) + "," + entry("a", "[2]", 0, 8) + "}", 8),
     {": a:", "name appears twice"}},
    {"metadata_is_list", make_file(R"({"__metadata__":[]})", 0), {"an object"}},
    {"metadata_of_numbers", make_file(R"({"__metadata__":{"a":1}})", 0), {"a string"}},
    {"metadata_nested", make_file(R"({"__metadata__":{"a":{}}})", 0), {"a string"}},
    {"metadata_list", make_file(R"({"__metadata__":{"dtype":[]}})", 0), {"a string"}},
};

INSTANTIATE_TEST_SUITE_P(All, SafetensorsHeaderMalformed, testing::ValuesIn(malformed),
                         [](const auto& param) { return param.param.label; });

TEST(SafetensorsHeader, MessagesStayOneShortLine) {
  const std::string message =
      error_of(make_file("{\"a\\nb" + std::string(10000, 'c') + "\":1}", 0));
  EXPECT_LT(message.size(), 400u);
  EXPECT_EQ(message.find('\n'), std::string::npos);
}

std::vector<StoredTensor> random_tensors(Random& random) {
  std::vector<StoredTensor> tensors(random.below(12));
  for (size_t i = 0; i < tensors.size(); ++i) {
    tensors[i].name = "t" + std::to_string(i) + (random.below(3) == 0 ? "\"\\é\n" : "");
    tensors[i].type = static_cast<StoredType>(random.below(12));
    for (uint64_t d = random.below(4); d > 0; --d) {
      tensors[i].shape.push_back(static_cast<int64_t>(random.below(6)));
    }
  }
  return tensors;
}

std::string random_file(Random& random) {
  std::vector<StoredTensor> tensors = random_tensors(random);
  std::string file = format_safetensors_header(tensors, {{"k", "v\"\n"}}, "f");
  if (!tensors.empty()) file.resize(tensors.back().end, 'x');
  return file;
}

TEST(SafetensorsHeader, WhatIsFormattedIsReadBack) {
  Random random(7);
  for (int round = 0; round < 200; ++round) {
    std::vector<StoredTensor> tensors = random_tensors(random);
    std::string file = format_safetensors_header(tensors, {{"k", "v"}}, "f");
    EXPECT_EQ(file.size() % 8, 0u);
    if (!tensors.empty()) file.resize(tensors.back().end, 'x');
    const SafetensorsHeader header = parse(file);
    ASSERT_EQ(header.tensors.size(), tensors.size());
    for (const StoredTensor& tensor : tensors) {
      const auto found = std::find_if(header.tensors.begin(), header.tensors.end(),
                                      [&](const auto& other) { return other.name == tensor.name; });
      ASSERT_NE(found, header.tensors.end());
      EXPECT_EQ(found->describe(), tensor.describe());
      EXPECT_EQ(found->begin, tensor.begin);
      EXPECT_EQ(found->begin % static_cast<uint64_t>(stored_type_size(tensor.type)), 0u);
    }
  }
}

TEST(SafetensorsHeader, DamagedFilesGiveFileErrorsOnly) {
  Random random(11);
  int refused = 0;
  for (int round = 0; round < 3000; ++round) {
    std::string file = random_file(random);
    for (uint64_t changes = 1 + random.below(3); changes > 0; --changes) {
      file[random.below(file.size())] = static_cast<char>(random.below(256));
    }
    if (random.below(4) == 0) file.resize(random.below(file.size() + 1));
    try {
      for (const StoredTensor& tensor : parse(file).tensors) ASSERT_LE(tensor.end, file.size());
    } catch (const FileError&) {
      ++refused;
    }
  }
  EXPECT_GT(refused, 1000);
}

TEST(SafetensorsHeader, FormatRefusesWhatCouldNotBeReadBack) {
  std::vector<StoredTensor> twice = {{.name = "a"}, {.name = "a"}};
  EXPECT_THROW(format_safetensors_header(twice, {}, "f"), FileError);
  std::vector<StoredTensor> reserved = {{.name = "__metadata__"}};
  EXPECT_THROW(format_safetensors_header(reserved, {}, "f"), FileError);
  std::vector<StoredTensor> huge = {{.name = "a", .shape = {int64_t{1} << 62, 4}}};
  EXPECT_THROW(format_safetensors_header(huge, {}, "f"), FileError);
  std::vector<StoredTensor> not_text = {{.name = "\xff"}};
  EXPECT_THROW(format_safetensors_header(not_text, {}, "f"), FileError);
}

}  // namespace
}  // namespace farskip
