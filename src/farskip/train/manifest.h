#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "farskip/base/checksum.h"
#include "farskip/base/json.h"

namespace farskip {

// Where a training run stands, besides its parameters and moments.
struct TrainingPoint {
  int64_t step = 0;    // steps done
  int64_t tokens = 0;  // trained on so far
  std::string model_config;
  uint64_t model_fingerprint = 0;  // model/fingerprint.h
  Json connectivity;               // Connectivity::to_json
  uint64_t data_seed = 0;          // of the order of the data
  int64_t data_position = 0;       // of the next sequence in that order
  Json settings = Json::object();  // hyper-parameters and what else the trainer wants back
};

// A checkpoint in a few lines: its manifest.json.
struct Manifest {
  TrainingPoint point;
  std::vector<FileStamp> files;  // [r] is of rank r, named shard_file_name(r)

  int ranks() const { return static_cast<int>(files.size()); }
};

// "rank-00003.safetensors" for 3.
std::string shard_file_name(int rank);

// Writes manifest.json into a checkpoint's folder. Throws FileError.
void write_manifest(const std::filesystem::path& folder, const Manifest& manifest);

// Reads it and checks that every rank's file is there and of the stated size, not what is in them.
// Throws FileError for a manifest that is missing, no JSON, or of another format or version, and
// for a file that is missing or of another size; ConfigError for a field that is missing or wrong.
Manifest read_manifest(const std::filesystem::path& folder);

}  // namespace farskip
