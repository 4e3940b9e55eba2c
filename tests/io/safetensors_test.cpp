#include "farskip/io/safetensors.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/complex.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "checkpoint_tools.h"
#include "farskip/base/error.h"

namespace farskip {
namespace {

using testing::HasSubstr;

TEST(Safetensors, EveryDtypeComesBackBitForBit) {
  const TemporaryFolder folder;
  Tensors tensors;
  for (at::ScalarType type :
       {at::kDouble, at::kFloat, at::kHalf, at::kBFloat16, at::kFloat8_e4m3fn, at::kFloat8_e5m2,
        at::kLong, at::kInt, at::kShort, at::kChar, at::kByte, at::kBool}) {
    tensors[c10::toString(type)] = at::arange(1, 8, at::kFloat).to(type);
  }
  tensors["scalar"] = at::full({}, 2.5, at::kFloat);
  tensors["empty"] = at::empty({0, 3}, at::kFloat);
  tensors["strided"] = at::arange(12, at::kFloat).view({3, 4}).t();
  write_tensors(folder.path() / "a.safetensors", tensors);

  const SafetensorsFile file(folder.path() / "a.safetensors");
  EXPECT_EQ(file.tensors().size(), tensors.size());
  EXPECT_EQ(file.metadata().at("format"), "pt");
  for (const auto& [name, tensor] : tensors) {
    const at::Tensor view = file.view(name);
    EXPECT_EQ(view.sizes(), tensor.sizes()) << name;
    ASSERT_EQ(view.scalar_type(), tensor.scalar_type()) << name;
    const at::Tensor stored = tensor.contiguous();
    const auto* bytes = static_cast<const std::byte*>(stored.const_data_ptr());
    EXPECT_TRUE(std::equal(bytes, bytes + stored.nbytes(),
                           static_cast<const std::byte*>(view.const_data_ptr())))
        << name;
  }
}

TEST(Safetensors, ViewsAreZeroCopyAndOutliveTheFile) {
  at::Tensor view;
  {
    const SafetensorsFile file(fixture("olmoe") / "model.safetensors");
    view = file.view("model.norm.weight");
    EXPECT_EQ(view.const_data_ptr(), file.view("model.norm.weight").const_data_ptr());
    file.release("model.norm.weight");
  }
  EXPECT_EQ(view.sizes(), at::IntArrayRef({64}));
  EXPECT_TRUE(std::isfinite(view.sum().item<float>()));
}

TEST(Safetensors, MisalignedDataIsCopied) {
  const TemporaryFolder folder;
  std::string file = R"({"b":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                     R"("f":{"dtype":"F32","shape":[1],"data_offsets":[1,5]}})";
  std::string content(8, '\0');
  content[0] = static_cast<char>(file.size());
  const float value = 3.25f;
  content += file + "\x07" + std::string(reinterpret_cast<const char*>(&value), 4);
  write_file_atomically(folder.path() / "odd", content);
  const SafetensorsFile odd(folder.path() / "odd");
  EXPECT_EQ(odd.view("f").item<float>(), 3.25f);
  EXPECT_EQ(odd.view("b").item<int>(), 7);
}

TEST(Safetensors, TruncatedFilesAreRefusedAtAnyLength) {
  const TemporaryFolder folder;
  const auto path = folder.path() / "a.safetensors";
  write_tensors(path, {{"a", at::arange(5, at::kFloat)}, {"b", at::arange(3, at::kLong)}});
  const std::string whole = read_file(path);
  for (size_t length = 0; length < whole.size(); ++length) {
    write_file_atomically(folder.path() / "cut", whole.substr(0, length));
    EXPECT_THROW(SafetensorsFile(folder.path() / "cut"), FileError) << length;
  }
}

TEST(Safetensors, MissingFilesAndTensorsAreNamed) {
  EXPECT_THROW(SafetensorsFile("no/such/file"), FileError);
  const SafetensorsFile file(fixture("olmoe") / "model.safetensors");
  EXPECT_FALSE(file.contains("nothing"));
  EXPECT_THAT(message_of<FileError>([&] { file.view("nothing"); }), HasSubstr("expected nothing"));
}

TEST(Safetensors, FailedWriteLeavesTheOldFile) {
  const TemporaryFolder folder;
  const auto path = folder.path() / "a.safetensors";
  write_tensors(path, {{"a", at::arange(5, at::kFloat)}});
  const std::string before = read_file(path);
  const at::Tensor one = at::full({1}, 1.0, at::kFloat);
  EXPECT_THROW(write_tensors(path, {{"a", one}, {"c", at::complex(one, one)}}), UnsupportedError);
  EXPECT_THROW(write_tensors(path, {{"a", at::Tensor()}}), UnsupportedError);
  EXPECT_THROW(write_safetensors(path, std::vector<NamedTensor>{{"a", one}, {"a", one}}),
               FileError);
  EXPECT_EQ(read_file(path), before);
  EXPECT_THROW(write_tensors(folder.path() / "none" / "a", {{"a", one}}), FileError);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder.path()), {}), 1);
}

}  // namespace
}  // namespace farskip
