#include "farskip/io/safetensors_header.h"

#include <algorithm>
#include <array>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <tuple>
#include <utility>

#include "farskip/base/error.h"

namespace farskip {
namespace {

struct TypeRow {
  StoredType type;
  std::string_view name;
  int64_t size;
};

constexpr std::array<TypeRow, 12> type_table = {{{StoredType::f64, "F64", 8},
                                                 {StoredType::f32, "F32", 4},
                                                 {StoredType::f16, "F16", 2},
                                                 {StoredType::bf16, "BF16", 2},
                                                 {StoredType::f8_e4m3, "F8_E4M3", 1},
                                                 {StoredType::f8_e5m2, "F8_E5M2", 1},
                                                 {StoredType::i64, "I64", 8},
                                                 {StoredType::i32, "I32", 4},
                                                 {StoredType::i16, "I16", 2},
                                                 {StoredType::i8, "I8", 1},
                                                 {StoredType::u8, "U8", 1},
                                                 {StoredType::boolean, "BOOL", 1}}};

constexpr size_t length_bytes = 8;      // the u64 in front of the JSON
constexpr size_t most_dimensions = 64;  // what tensor libraries index
constexpr std::string_view metadata_key = "__metadata__";

const TypeRow& row_of(StoredType type) { return type_table[static_cast<size_t>(type)]; }

std::string known_type_names() {
  std::string names = "one of";
  for (const TypeRow& row : type_table) names += " " + std::string(row.name);
  return names;
}

[[noreturn]] void fail(const std::string& path, std::string_view tensor, const std::string& summary,
                       std::string expected, std::string found, std::string hint = {}) {
  const std::string where = tensor.empty() ? path : path + ": " + printable_name(tensor);
  throw FileError(summary, {.where = where,
                            .expected = std::move(expected),
                            .found = std::move(found),
                            .hint = std::move(hint)});
}

// Elements of a shape; nothing where the product does not fit into int64.
std::optional<int64_t> checked_elements(std::span<const int64_t> shape) {
  int64_t elements = 1;
  bool overflow = false;
  for (int64_t size : shape) {
    if (size == 0) return 0;
    overflow = overflow || size < 0 || __builtin_mul_overflow(elements, size, &elements);
  }
  if (overflow) return std::nullopt;
  return elements;
}

// Receives the JSON piece by piece. Only the two levels that the format has are accepted, so
// nesting is bounded, and names that come twice are seen, which a JSON tree would merge.
class HeaderReader : public nlohmann::json_sax<nlohmann::json> {
 public:
  HeaderReader(const std::string& path, SafetensorsHeader& header) : path_(path), header_(header) {}

  bool start_object(size_t) override {
    if (depth_ == 0) {
      depth_ = 1;
    } else if (depth_ == 1) {
      depth_ = 2;
      fields_.clear();
      tensor_ = {};
      tensor_.name = name_;
    } else {
      wrong_value("an object");
    }
    return true;
  }

  bool key(string_t& text) override {
    if (depth_ == 1) {
      name_ = text;
      if (!names_.insert(text).second) {
        fail(path_, text, "name appears twice in the header", "one entry", "two");
      }
      return true;
    }
    field_ = text;
    if (!fields_.insert(text).second) {
      fail(path_, name_, "field appears twice", "one", printable_name(text));
    }
    if (!in_metadata() && text != "dtype" && text != "shape" && text != "data_offsets") {
      fail(path_, name_, "unknown field", "dtype, shape and data_offsets", printable_name(text));
    }
    return true;
  }

  bool end_object() override {
    if (depth_ == 2 && !in_metadata()) {
      if (fields_.size() != 3) {
        fail(path_, name_, "incomplete entry", "dtype, shape and data_offsets",
             std::to_string(fields_.size()) + " of the three");
      }
      finish_tensor();
    }
    --depth_;
    return true;
  }

  bool start_array(size_t) override {
    if (depth_ != 2 || in_metadata() || in_array_ || field_ == "dtype") wrong_value("an array");
    in_array_ = true;
    return true;
  }

  bool end_array() override {
    in_array_ = false;
    return true;
  }

  bool number_unsigned(number_unsigned_t value) override {
    if (!in_array_) wrong_value(std::to_string(value));
    if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
      fail(path_, name_, "number too large in " + field_, "less than 2^63", std::to_string(value));
    }
    if (field_ == "shape") {
      if (tensor_.shape.size() == most_dimensions) {
        fail(path_, name_, "too many dimensions", "at most " + std::to_string(most_dimensions),
             "more");
      }
      tensor_.shape.push_back(static_cast<int64_t>(value));
    } else if (offsets_ == 2) {
      fail(path_, name_, "wrong data_offsets", "two numbers", "more");
    } else {
      (offsets_++ == 0 ? tensor_.begin : tensor_.end) = value;
    }
    return true;
  }

  bool string(string_t& value) override {
    if (depth_ == 2 && in_metadata()) {
      header_.metadata[field_] = value;
      return true;
    }
    if (depth_ != 2 || field_ != "dtype" || in_array_) wrong_value("a string");
    const auto* row = std::find_if(type_table.begin(), type_table.end(),
                                   [&](const TypeRow& entry) { return entry.name == value; });
    if (row == type_table.end()) {
      fail(path_, name_, "unknown dtype", known_type_names(), printable_name(value));
    }
    tensor_.type = row->type;
    return true;
  }

  bool number_integer(number_integer_t value) override {
    return wrong_value(std::to_string(value));
  }
  bool number_float(number_float_t, const string_t& text) override {
    return wrong_value(printable_name(text));
  }
  bool null() override { return wrong_value("null"); }
  bool boolean(bool) override { return wrong_value("a boolean"); }
  bool binary(binary_t&) override { return wrong_value("binary data"); }

  bool parse_error(size_t position, const std::string&,
                   const nlohmann::detail::exception&) override {
    fail(path_, {}, "header is not JSON", "a JSON object",
         "an error at byte " + std::to_string(position) + " of the header");
  }

 private:
  bool in_metadata() const { return name_ == metadata_key; }

  [[noreturn]] bool wrong_value(const std::string& found) const {
    if (depth_ == 0) fail(path_, {}, "header is not a JSON object", "an object", found);
    if (depth_ == 1) fail(path_, name_, "wrong value", "an object", found);
    const std::string expected = in_metadata()                           ? "a string"
                                 : field_ == "dtype"                     ? "a dtype name"
                                 : in_array_ || field_ == "data_offsets" ? "integers >= 0"
                                                                         : "a list";
    fail(path_, name_, "wrong value of " + printable_name(field_), expected, found);
  }

  void finish_tensor() {
    if (std::exchange(offsets_, 0) != 2) {
      fail(path_, name_, "wrong data_offsets", "two numbers", "fewer");
    }
    header_.tensors.push_back(std::move(tensor_));
  }

  const std::string& path_;
  SafetensorsHeader& header_;
  StoredTensor tensor_;
  std::string name_, field_;
  std::set<std::string> names_, fields_;
  int depth_ = 0;
  int offsets_ = 0;
  bool in_array_ = false;
};

// One tensor against the size of the data section; its offsets still count from that section.
void check_size(const StoredTensor& tensor, uint64_t data_bytes, const std::string& path) {
  const std::string offsets =
      "[" + std::to_string(tensor.begin) + ", " + std::to_string(tensor.end) + "]";
  if (tensor.begin > tensor.end) {
    fail(path, tensor.name, "data_offsets run backwards", "begin <= end", offsets);
  }
  if (tensor.end > data_bytes) {
    fail(path, tensor.name, "data lies outside the file",
         "offsets up to " + std::to_string(data_bytes), offsets, "the file may be truncated");
  }
  const std::optional<int64_t> elements = checked_elements(tensor.shape);
  int64_t bytes = 0;
  if (!elements || __builtin_mul_overflow(*elements, stored_type_size(tensor.type), &bytes)) {
    fail(path, tensor.name, "shape overflows", "less than 2^63 bytes", tensor.describe());
  }
  if (static_cast<uint64_t>(bytes) != tensor.end - tensor.begin) {
    fail(path, tensor.name, "size does not fit dtype and shape",
         std::to_string(bytes) + " bytes for " + tensor.describe(),
         std::to_string(tensor.end - tensor.begin) + " bytes");
  }
}

// Tensors in byte order must follow one another without a gap up to the end of the file.
void check_cover(const std::vector<StoredTensor>& tensors, uint64_t data_bytes,
                 const std::string& path) {
  uint64_t covered = 0;
  for (const StoredTensor& tensor : tensors) {
    if (tensor.begin != covered) {
      const bool overlap = tensor.begin < covered;
      fail(path, tensor.name, overlap ? "overlaps another tensor" : "leaves a hole before it",
           "data at offset " + std::to_string(covered), "at " + std::to_string(tensor.begin));
    }
    covered = tensor.end;
  }
  if (covered != data_bytes) {
    fail(path, {}, "bytes behind the last tensor", std::to_string(covered) + " bytes of data",
         std::to_string(data_bytes));
  }
}

std::string quoted(std::string_view text, const std::string& path) {
  try {
    return nlohmann::json(text).dump();
  } catch (const nlohmann::json::exception&) {
    fail(path, {}, "a name or metadata entry is not text", "UTF-8", "other bytes");
  }
}

std::string quoted_map(const std::map<std::string, std::string>& entries, const std::string& path) {
  std::string text = "{";
  for (const auto& [key, value] : entries) {
    text += (text.size() > 1 ? "," : "") + quoted(key, path) + ":" + quoted(value, path);
  }
  return text + "}";
}

uint64_t read_header_length(std::span<const std::byte> file, const std::string& path) {
  if (file.size() < length_bytes) {
    fail(path, {}, "not a safetensors file", "at least 8 bytes",
         std::to_string(file.size()) + " bytes", "the file may be truncated");
  }
  uint64_t length = 0;
  for (size_t i = length_bytes; i-- > 0;) length = length << 8 | static_cast<uint64_t>(file[i]);
  if (length > safetensors_header_limit) {
    fail(path, {}, "header too long", "at most " + std::to_string(safetensors_header_limit),
         std::to_string(length) + " bytes", "this may not be a safetensors file");
  }
  if (length > file.size() - length_bytes) {
    fail(path, {}, "header is longer than the file",
         "at most " + std::to_string(file.size() - length_bytes) + " bytes",
         std::to_string(length) + " bytes", "the file may be truncated");
  }
  return length;
}

}  // namespace

std::string_view stored_type_name(StoredType type) { return row_of(type).name; }

int64_t stored_type_size(StoredType type) { return row_of(type).size; }

int64_t StoredTensor::elements() const { return checked_elements(shape).value_or(0); }

std::string StoredTensor::describe() const {
  return std::string(stored_type_name(type)) + " " + describe_shape(shape);
}

std::string describe_shape(std::span<const int64_t> shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) {
    text += (i == 0 ? "" : ", ") + std::to_string(shape[i]);
  }
  return text + "]";
}

std::string printable_name(std::string_view name) {
  constexpr size_t longest = 120;
  std::string text(name.substr(0, longest));
  std::replace_if(
      text.begin(), text.end(), [](unsigned char c) { return c < 0x20 || c == 0x7f; }, '?');
  return name.size() > longest ? text + "..." : text;
}

SafetensorsHeader parse_safetensors_header(std::span<const std::byte> file,
                                           const std::string& path) {
  const uint64_t length = read_header_length(file, path);
  const auto* json = reinterpret_cast<const char*>(file.data()) + length_bytes;
  SafetensorsHeader header;
  HeaderReader reader(path, header);
  nlohmann::json::sax_parse(json, json + length, &reader);

  const uint64_t data_start = length_bytes + length;
  const uint64_t data_bytes = file.size() - data_start;
  for (const StoredTensor& tensor : header.tensors) check_size(tensor, data_bytes, path);
  std::sort(header.tensors.begin(), header.tensors.end(),
            [](const StoredTensor& a, const StoredTensor& b) {
              return std::tie(a.begin, a.end, a.name) < std::tie(b.begin, b.end, b.name);
            });
  check_cover(header.tensors, data_bytes, path);
  for (StoredTensor& tensor : header.tensors) {
    tensor.begin += data_start;
    tensor.end += data_start;
  }
  return header;
}

std::string format_safetensors_header(std::vector<StoredTensor>& tensors,
                                      const std::map<std::string, std::string>& metadata,
                                      const std::string& path) {
  std::sort(tensors.begin(), tensors.end(), [](const StoredTensor& a, const StoredTensor& b) {
    return std::pair(-stored_type_size(a.type), std::string_view(a.name)) <
           std::pair(-stored_type_size(b.type), std::string_view(b.name));
  });
  std::set<std::string_view> names = {metadata_key};
  std::string text = "{";
  if (!metadata.empty()) text += quoted(metadata_key, path) + ":" + quoted_map(metadata, path);
  uint64_t offset = 0;
  for (StoredTensor& tensor : tensors) {
    const std::optional<int64_t> elements = checked_elements(tensor.shape);
    int64_t bytes = 0, end = 0;
    if (!names.insert(tensor.name).second) {
      fail(path, tensor.name, "name is taken", "each name once, none reserved", "it again");
    }
    if (!elements || __builtin_mul_overflow(*elements, stored_type_size(tensor.type), &bytes) ||
        __builtin_add_overflow(static_cast<int64_t>(offset), bytes, &end)) {
      fail(path, tensor.name, "shape overflows", "less than 2^63 bytes", tensor.describe());
    }
    tensor.begin = std::exchange(offset, static_cast<uint64_t>(end));
    tensor.end = offset;
    if (text.size() > 1) text += ",";
    text += quoted(tensor.name, path) + ":{\"dtype\":\"" +
            std::string(stored_type_name(tensor.type)) +
            "\",\"shape\":" + describe_shape(tensor.shape) + ",\"data_offsets\":[" +
            std::to_string(tensor.begin) + "," + std::to_string(tensor.end) + "]}";
  }
  text += "}";
  text.append((length_bytes - text.size() % length_bytes) % length_bytes, ' ');
  std::string bytes;
  for (size_t i = 0; i < length_bytes; ++i) bytes += static_cast<char>(text.size() >> (8 * i));
  for (StoredTensor& tensor : tensors) {
    tensor.begin += length_bytes + text.size();
    tensor.end += length_bytes + text.size();
  }
  return bytes + text;
}

}  // namespace farskip
