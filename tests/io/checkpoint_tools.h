#pragma once

#include <ATen/ops/randn.h>

#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "../base/temporary_folder.h"
#include "farskip/base/files.h"
#include "farskip/base/json.h"
#include "farskip/io/checkpoint.h"

namespace farskip {

using Tensors = std::map<std::string, at::Tensor>;

inline std::filesystem::path fixture(const std::string& family) {
  return std::filesystem::path(FARSKIP_SOURCE_DIR) / "tests" / "fixtures" / family;
}

inline Tensors tensors_of(const SafetensorsFile& file) {
  Tensors tensors;
  for (const StoredTensor& tensor : file.tensors()) tensors[tensor.name] = file.view(tensor.name);
  return tensors;
}

inline Tensors fixture_tensors(const std::string& family) {
  return tensors_of(SafetensorsFile(fixture(family) / "model.safetensors"));
}

inline void write_tensors(const std::filesystem::path& path, const Tensors& tensors) {
  std::vector<NamedTensor> named;
  for (const auto& [name, tensor] : tensors) named.push_back({name, tensor});
  write_safetensors(path, named, {{"format", "pt"}});
}

// A family's config.json with some fields replaced.
inline void write_config(const std::filesystem::path& folder, const std::string& family,
                         const Json& changes = Json::object()) {
  Json config = read_json_file(fixture(family) / "config.json");
  config.update(changes);
  write_json_file(folder / "config.json", config);
}

// A checkpoint folder in one file, for tests to spoil.
inline void write_checkpoint(const std::filesystem::path& folder, const std::string& family,
                             const Tensors& tensors, const Json& changes = Json::object()) {
  write_config(folder, family, changes);
  write_tensors(folder / "model.safetensors", tensors);
}

inline Json fp8_config() {
  return {{"quantization_config",
           {{"quant_method", "fp8"}, {"fmt", "e4m3"}, {"weight_block_size", {128, 128}}}}};
}

// What() of the error that `call` throws as Expected, or why it is none.
template <typename Expected, typename Call>
std::string message_of(Call call) {
  try {
    call();
  } catch (const Expected& error) {
    return error.what();
  } catch (const std::exception& error) {
    return std::string("another error: ") + error.what();
  }
  return "no error";
}

}  // namespace farskip
