#include "fixture.h"

#include <ATen/Parallel.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/stack.h>
#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <stdexcept>

namespace farskip::testing {
namespace {

at::ScalarType dtype_named(const std::string& name) {
  if (name == "F32") return at::kFloat;
  if (name == "I64") return at::kLong;
  if (name == "I32") return at::kInt;
  throw std::runtime_error("unexpected dtype " + name);
}

// As every rank has it: with more threads BLAS cuts rows between them, and the bits of a row depend
// on the cut.
class OneThread final : public ::testing::Environment {
  void SetUp() override { at::set_num_threads(1); }
};
[[maybe_unused]] const auto* const one_thread =
    ::testing::AddGlobalTestEnvironment(new OneThread());

}  // namespace

TensorMap read_tensors(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error("no fixture at " + path);
  std::stringstream stream;
  stream << file.rdbuf();
  std::string bytes = stream.str();
  uint64_t header = 0;
  std::memcpy(&header, bytes.data(), sizeof(header));
  const auto json = nlohmann::json::parse(bytes.substr(8, header));
  TensorMap tensors;
  for (const auto& [name, entry] : json.items()) {
    if (name == "__metadata__") continue;
    char* data = bytes.data() + 8 + header + entry["data_offsets"][0].get<int64_t>();
    const auto shape = entry["shape"].get<std::vector<int64_t>>();
    tensors[name] = at::from_blob(data, shape, dtype_named(entry["dtype"])).clone();
  }
  return tensors;
}

Fixture load_fixture(const std::string& family) {
  const std::string folder = std::string(FARSKIP_SOURCE_DIR) + "/tests/fixtures/" + family;
  return {read_model_config(folder + "/config.json"), read_tensors(folder + "/model.safetensors"),
          read_tensors(folder + "/golden.safetensors")};
}

}  // namespace farskip::testing
