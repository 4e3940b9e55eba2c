#include "farskip/train/export.h"

#include <nlohmann/json.hpp>
#include <unordered_map>

#include "farskip/base/error.h"
#include "farskip/base/folders.h"
#include "farskip/io/naming.h"
#include "farskip/io/safetensors_writer.h"
#include "farskip/model/stored_connectivity.h"

namespace farskip {
namespace {

namespace fs = std::filesystem;

// What tokenizes and generates; of a model's folder all that is neither weights nor config.json.
constexpr const char* companions[] = {"tokenizer.json",    "tokenizer_config.json",
                                      "tokenizer.model",   "special_tokens_map.json",
                                      "vocab.json",        "merges.txt",
                                      "added_tokens.json", "chat_template.jinja",
                                      "LICENSE",           "generation_config.json"};

// One tensor of the exported checkpoint, and which rows of which weight it is.
struct ExportedTensor {
  StoredTensor stored;
  WeightRows rows;

  uint64_t bytes() const {
    return static_cast<uint64_t>(stored.elements() * stored_type_size(stored.type));
  }
};

// The tensors that stand one under the other in a weight, or in one expert of it.
void add_stack(std::vector<ExportedTensor>& tensors, const WeightSpec& spec, int expert,
               const std::vector<std::string>& names) {
  int64_t begin = 0;
  for (size_t i = 0; i < names.size(); ++i) {
    const WeightRows rows{spec, expert, begin, spec.parts[i]};
    tensors.push_back(
        {{.name = names[i], .type = stored_type_of(spec.dtype), .shape = rows.shape()}, rows});
    begin += spec.parts[i];
  }
}

std::vector<ExportedTensor> list_tensors(const ModelConfig& config,
                                         const std::vector<WeightSpec>& specs) {
  // A checkpoint that is still to be written contains nothing that would decide otherwise.
  const CheckpointNaming naming(config, [](const std::string&) { return false; });
  std::vector<ExportedTensor> tensors;
  for (const WeightSpec& spec : specs) {
    if (!spec.of_experts()) {
      add_stack(tensors, spec, -1, naming.sources(spec));
      continue;
    }
    for (int expert = 0; expert < config.router.experts; ++expert) {
      add_stack(tensors, spec, expert, naming.expert_sources(spec.layer, spec.role, expert));
    }
  }
  return tensors;
}

// Cuts the list into runs of at most `limit` bytes, or of one tensor.
std::vector<std::span<const ExportedTensor>> cut_into_files(std::span<const ExportedTensor> tensors,
                                                            uint64_t limit) {
  std::vector<std::span<const ExportedTensor>> files;
  size_t begin = 0;
  uint64_t bytes = 0;
  for (size_t i = 0; i < tensors.size(); ++i) {
    if (i > begin && bytes + tensors[i].bytes() > limit) {
      files.push_back(tensors.subspan(begin, i - begin));
      begin = i;
      bytes = 0;
    }
    bytes += tensors[i].bytes();
  }
  files.push_back(tensors.subspan(begin));
  return files;
}

void write_file(const fs::path& path, std::span<const ExportedTensor> tensors,
                const WeightSource& source) {
  std::vector<StoredTensor> entries;
  std::unordered_map<std::string, const WeightRows*> rows;
  for (const ExportedTensor& tensor : tensors) {
    entries.push_back(tensor.stored);
    rows.emplace(tensor.stored.name, &tensor.rows);
  }
  stream_safetensors(path, std::move(entries), {{"format", "pt"}}, [&](const StoredTensor& entry) {
    return source(*rows.at(entry.name)).to(scalar_type_of(entry.type));
  });
}

void write_weights(const fs::path& folder, std::span<const ExportedTensor> tensors,
                   const WeightSource& source, uint64_t bytes_per_file) {
  const auto files = cut_into_files(tensors, bytes_per_file);
  if (files.size() == 1) return write_file(folder / "model.safetensors", tensors, source);
  uint64_t bytes = 0;
  Json map = Json::object();
  for (size_t i = 0; i < files.size(); ++i) {
    char name[64];
    std::snprintf(name, sizeof name, "model-%05zu-of-%05zu.safetensors", i + 1, files.size());
    write_file(folder / name, files[i], source);
    for (const ExportedTensor& tensor : files[i]) {
      bytes += tensor.bytes();
      map[tensor.stored.name] = name;
    }
  }
  write_json_file(folder / "model.safetensors.index.json",
                  {{"metadata", {{"total_size", bytes}}}, {"weight_map", std::move(map)}});
}

using OrderedJson = nlohmann::ordered_json;

// States the dtype of the exported weights under the keys that stand there, and forgets how the
// original ones were quantised.
void set_dtype(OrderedJson& config, const std::string& dtype) {
  for (const char* key : {"torch_dtype", "dtype"}) {
    if (config.contains(key)) config[key] = dtype;
  }
  config.erase("quantization_config");
}

std::string exported_config(const std::string& text, const Json& connectivity,
                            at::ScalarType dtype) {
  OrderedJson config = OrderedJson::parse(text);
  const std::string name = dtype == at::kFloat ? "float32" : "bfloat16";
  set_dtype(config, name);
  if (config.contains("text_config")) set_dtype(config["text_config"], name);
  if (!config.contains("torch_dtype") && !config.contains("dtype")) config["torch_dtype"] = name;
  config[stored_connectivity_key] = stored_connectivity_entry(connectivity);
  return config.dump(2) + "\n";
}

void copy_companions(const fs::path& from, const fs::path& to) {
  for (const char* name : companions) {
    std::error_code ignored;
    if (fs::exists(from / name, ignored)) write_file_atomically(to / name, read_file(from / name));
  }
}

void check(const fs::path& folder, at::ScalarType dtype) {
  if (dtype != at::kFloat && dtype != at::kBFloat16) {
    throw UnsupportedError("checkpoints are not exported in this dtype",
                           {.expected = "float32 or bfloat16", .found = c10::toString(dtype)});
  }
  std::error_code ignored;
  if (fs::exists(folder, ignored) && !fs::is_empty(folder, ignored)) {
    throw FileError("something is there already", {.where = folder.string(),
                                                   .expected = "a new or an empty folder",
                                                   .found = "a file, or a folder with files"});
  }
}

}  // namespace

void export_checkpoint(const fs::path& folder, const std::string& config_text,
                       const Json& connectivity, const WeightSource& source,
                       const ExportOptions& options) {
  check(folder, options.dtype);
  const ModelConfig config =
      parse_model_config(config_text, "config of the model", folder.filename().string());
  const std::vector<WeightSpec> specs =
      weight_specs(config, Placement::contiguous(config.router.experts, 1), 0, options.dtype);
  const std::vector<ExportedTensor> tensors = list_tensors(config, specs);

  StagedFolder staged(folder);
  write_weights(staged.path(), tensors, source, options.bytes_per_file);
  if (!options.companions_from.empty()) copy_companions(options.companions_from, staged.path());
  write_file_atomically(staged.path() / "config.json",
                        exported_config(config_text, connectivity, options.dtype));
  staged.put_in_place();
}

}  // namespace farskip
