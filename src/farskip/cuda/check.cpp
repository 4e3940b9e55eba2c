#include "farskip/cuda/check.h"

#include <c10/cuda/CUDAStream.h>

#include <string>

#include "farskip/base/error.h"

namespace farskip::cuda {
namespace {

std::string shape_text(at::IntArrayRef shape) {
  std::string text = "[";
  for (const int64_t size : shape) {
    if (text.size() > 1) text += ", ";
    text += size < 0 ? "any" : std::to_string(size);
  }
  return text + "]";
}

bool matches(at::IntArrayRef found, at::IntArrayRef expected) {
  if (found.size() != expected.size()) return false;
  for (size_t i = 0; i < found.size(); ++i) {
    if (expected[i] >= 0 && expected[i] != found[i]) return false;
  }
  return true;
}

}  // namespace

void check_call(cudaError_t status, const char* call) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // the next launch must not find this call's error
  throw Error(
      "CUDA call failed",
      {.where = call, .expected = "success", .found = cudaGetErrorString(status), .hint = {}});
}

void check_launch(const char* kernel) { check_call(cudaGetLastError(), kernel); }

int multiprocessors() {
  int device = 0, count = 0;
  check_call(cudaGetDevice(&device), "cudaGetDevice");
  check_call(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device),
             "cudaDeviceGetAttribute");
  return count;
}

void require_on_gpu(const at::Tensor& tensor, at::IntArrayRef shape, std::string_view name) {
  const bool there = tensor.defined() && tensor.is_cuda();
  if (there && matches(tensor.sizes(), shape)) return;
  throw Error(
      "tensor does not fit the kernel",
      {.where = std::string(name),
       .expected = shape_text(shape) + " on a GPU",
       .found = !tensor.defined() ? "an undefined tensor"
                                  : shape_text(tensor.sizes()) + " on " + tensor.device().str(),
       .hint = {}});
}

void require_on_gpu(const at::Tensor& tensor, at::IntArrayRef shape, at::ScalarType dtype,
                    std::string_view name) {
  require_on_gpu(tensor, shape, name);
  if (tensor.scalar_type() == dtype) return;
  throw Error("tensor has the wrong dtype", {.where = std::string(name),
                                             .expected = at::toString(dtype),
                                             .found = at::toString(tensor.scalar_type()),
                                             .hint = {}});
}

void require_one_device(std::string_view function,
                        std::initializer_list<std::reference_wrapper<const at::Tensor>> tensors) {
  const at::Tensor& first = *tensors.begin();
  for (const at::Tensor& tensor : tensors) {
    if (!tensor.defined() || tensor.device() == first.device()) continue;
    throw Error("tensors lie on several devices", {.where = std::string(function),
                                                   .expected = first.device().str(),
                                                   .found = tensor.device().str(),
                                                   .hint = {}});
  }
}

void require_contiguous(const at::Tensor& tensor, std::string_view name) {
  if (tensor.is_contiguous()) return;
  throw Error("tensor is not contiguous", {.where = std::string(name),
                                           .expected = "a contiguous tensor",
                                           .found = "strides " + shape_text(tensor.strides()),
                                           .hint = {}});
}

void require_dense_rows(const at::Tensor& tensor, std::string_view name) {
  if (tensor.dim() == 0 || tensor.stride(-1) == 1 || tensor.size(-1) <= 1) return;
  throw Error("tensor's last dimension is strided",
              {.where = std::string(name),
               .expected = "stride 1",
               .found = "stride " + std::to_string(tensor.stride(-1)),
               .hint = "pass a contiguous tensor"});
}

Element element_of(const at::Tensor& tensor, std::string_view name) {
  if (tensor.scalar_type() == at::kFloat) return Element::f32;
  if (tensor.scalar_type() == at::kBFloat16) return Element::bf16;
  throw UnsupportedError("there is no kernel for this dtype",
                         {.where = std::string(name),
                          .expected = "Float or BFloat16",
                          .found = at::toString(tensor.scalar_type()),
                          .hint = {}});
}

void require_few_packs(int64_t rows, int64_t width, Element element, std::string_view name) {
  const int64_t row_packs = divide_up(width * size_of(element), access_bytes);
  if (rows == 0 || row_packs <= (int64_t{1} << 30) / rows) return;
  throw UnsupportedError("tensor is too large for the kernel",
                         {.where = std::string(name),
                          .expected = "at most 16 GiB in rows of whole accesses",
                          .found = std::to_string(rows) + " rows of " + std::to_string(width),
                          .hint = {}});
}

void require_choices(int64_t top_k, std::string_view name) {
  if (top_k >= 1 && top_k <= max_choices) return;
  throw UnsupportedError("there is no kernel for so many choices a token",
                         {.where = std::string(name),
                          .expected = "1 to " + std::to_string(max_choices),
                          .found = std::to_string(top_k)});
}

cudaStream_t stream_of(const at::Tensor& tensor) {
  return c10::cuda::getCurrentCUDAStream(tensor.device().index()).stream();
}

}  // namespace farskip::cuda
