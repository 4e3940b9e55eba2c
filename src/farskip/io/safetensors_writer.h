#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "farskip/base/checksum.h"
#include "farskip/io/safetensors_header.h"

namespace farskip {

// Gives the tensor of an entry: of its dtype and shape, on any device, with any strides.
using TensorSource = std::function<at::Tensor(const StoredTensor&)>;

// Writes a safetensors file tensor by tensor, whole or not at all; an older file stays until then.
// `tensors` state name, type and shape; the header is written first, then `source` is asked for one
// tensor after the other in the order of their bytes, and each is let go once written. One that is
// not on the CPU crosses in pieces of 64 MiB. Returns size and checksum of the file.
// Throws FileError (disk, repeated name), UnsupportedError (a tensor that is not what its entry
// states), and what `source` throws.
FileStamp stream_safetensors(const std::filesystem::path& path, std::vector<StoredTensor> tensors,
                             const std::map<std::string, std::string>& metadata,
                             const TensorSource& source);

}  // namespace farskip
