#include "farskip/model/builtin.h"

#include <algorithm>
#include <cctype>
#include <numeric>
#include <utility>
#include <vector>

#include "farskip/base/error.h"
#include "farskip/base/files.h"

namespace farskip {
namespace {

std::string lower(std::string_view text) {
  std::string result(text);
  for (char& each : result) {
    each = static_cast<char>(std::tolower(static_cast<unsigned char>(each)));
  }
  return result;
}

// Levenshtein distance.
size_t distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = std::exchange(row[0], i);
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t changed = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = std::exchange(row[j], std::min({changed, row[j] + 1, row[j - 1] + 1}));
    }
  }
  return row.back();
}

// Names that hold the wanted one or differ in few letters; all of them if none does.
std::string suggestions(const std::string& wanted) {
  const std::string tail = lower(wanted.substr(wanted.find_last_of("/\\") + 1)).substr(0, 60);
  std::string close, all;
  for (const BuiltinModel& model : builtin_models()) {
    const std::string name(model.name);
    const auto add = [&](std::string& list) { list += (list.empty() ? "" : ", ") + name; };
    add(all);
    const bool holds = tail.size() > 2 && (name.find(tail) != std::string::npos ||
                                           tail.find(name) != std::string::npos);
    if (holds || distance(tail, name) <= std::max<size_t>(2, name.size() / 3)) add(close);
  }
  return close.empty() ? "built-in models: " + all : "close built-in models: " + close;
}

}  // namespace

namespace {

bool is_path(const std::string& name_or_path) {
  std::error_code ignored;
  return !name_or_path.empty() && std::filesystem::exists(name_or_path, ignored);
}

const BuiltinModel& find_builtin(const std::string& name) {
  const std::string wanted = lower(name);
  const auto found = std::ranges::find(builtin_models(), wanted, &BuiltinModel::name);
  if (found != builtin_models().end()) return *found;
  throw ConfigError("unknown model", {.where = name.substr(0, 200),
                                      .expected = "a config.json, a folder with one, or a name",
                                      .hint = suggestions(name)});
}

}  // namespace

ModelConfig load_model(const std::string& name_or_path) {
  if (is_path(name_or_path)) return read_model_config(name_or_path);
  const BuiltinModel& model = find_builtin(name_or_path);
  const std::string name(model.name);
  return parse_model_config(std::string(model.json), "built-in model " + name, name);
}

std::string load_model_text(const std::string& name_or_path) {
  if (!is_path(name_or_path)) return std::string(find_builtin(name_or_path).json);
  const std::filesystem::path path = name_or_path;
  return read_file(std::filesystem::is_directory(path) ? path / "config.json" : path);
}

}  // namespace farskip
