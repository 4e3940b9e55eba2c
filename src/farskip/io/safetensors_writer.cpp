#include "farskip/io/safetensors_writer.h"

#include "farskip/base/error.h"
#include "farskip/base/files.h"
#include "farskip/io/safetensors.h"

namespace farskip {
namespace {

constexpr int64_t piece_bytes = int64_t{64} << 20;

// Passes bytes on to a file and adds them to its checksum.
class StampedOutput {
 public:
  explicit StampedOutput(OutputFile& file) : file_(file) {}

  void write(std::span<const std::byte> bytes) {
    file_.write(bytes);
    checksum_.add(bytes);
  }

  // `tensor` is contiguous and on the CPU.
  void write(const at::Tensor& tensor) {
    write({static_cast<const std::byte*>(tensor.const_data_ptr()), tensor.nbytes()});
  }

  FileStamp stamp() const { return {file_.size(), checksum_.value()}; }

 private:
  OutputFile& file_;
  Checksum checksum_;
};

void check(const at::Tensor& tensor, const StoredTensor& entry, const std::string& path) {
  const bool same = tensor.defined() && tensor.sizes() == at::IntArrayRef(entry.shape) &&
                    tensor.scalar_type() == scalar_type_of(entry.type);
  if (same) return;
  throw UnsupportedError(
      "can not be written",
      {.where = path + ": " + printable_name(entry.name),
       .expected = entry.describe(),
       .found = tensor.defined() ? std::string(c10::toString(tensor.scalar_type())) + " " +
                                       describe_shape(tensor.sizes())
                                 : "an undefined tensor"});
}

void write_tensor(StampedOutput& output, const at::Tensor& tensor) {
  const at::Tensor dense = tensor.detach().contiguous();
  if (dense.is_cpu()) return output.write(dense);
  const at::Tensor flat = dense.view(-1);
  const int64_t piece = piece_bytes / flat.element_size();
  for (int64_t begin = 0; begin < flat.numel(); begin += piece) {
    output.write(flat.narrow(0, begin, std::min(piece, flat.numel() - begin)).cpu());
  }
}

}  // namespace

FileStamp stream_safetensors(const std::filesystem::path& path, std::vector<StoredTensor> tensors,
                             const std::map<std::string, std::string>& metadata,
                             const TensorSource& source) {
  const std::string header = format_safetensors_header(tensors, metadata, path.string());
  FileStamp stamp;
  write_file_atomically(path, [&](OutputFile& file) {
    StampedOutput output(file);
    output.write(std::as_bytes(std::span(header)));
    for (const StoredTensor& entry : tensors) {
      const at::Tensor tensor = source(entry);
      check(tensor, entry, path.string());
      write_tensor(output, tensor);
    }
    stamp = output.stamp();
  });
  return stamp;
}

}  // namespace farskip
