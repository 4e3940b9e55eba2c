#include "farskip/io/safetensors_writer.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "../base/full_disk.h"
#include "../base/read_only_folder.h"
#include "checkpoint_tools.h"
#include "farskip/base/error.h"

namespace farskip {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;

const std::vector<StoredTensor> entries = {{.name = "a", .type = StoredType::bf16, .shape = {3}},
                                           {.name = "z", .type = StoredType::f32, .shape = {2, 2}},
                                           {.name = "b", .type = StoredType::f32, .shape = {0}}};

at::Tensor tensor_of(const StoredTensor& entry) {
  return at::arange(entry.elements(), scalar_type_of(entry.type)).view(entry.shape);
}

class SafetensorsWriter : public testing::Test {
 protected:
  fs::path path() const { return folder_.path() / "x.safetensors"; }
  size_t files() const { return std::distance(fs::directory_iterator(folder_.path()), {}); }
  std::string error_of_writing(const TensorSource& source = tensor_of) const {
    return message_of<FileError>([&] { stream_safetensors(path(), entries, {}, source); });
  }

  TemporaryFolder folder_;
};

TEST_F(SafetensorsWriter, AsksForTensorsInTheOrderOfTheFile) {
  std::vector<std::string> asked;
  const FileStamp stamp =
      stream_safetensors(path(), entries, {{"key", "\"value\""}}, [&](const StoredTensor& entry) {
        asked.push_back(entry.name);
        return tensor_of(entry);
      });
  EXPECT_THAT(asked, ElementsAre("b", "z", "a"));
  EXPECT_EQ(stamp, stamp_of_file(path()));
  const SafetensorsFile file(path());
  EXPECT_EQ(file.metadata().at("key"), "\"value\"");
  for (const StoredTensor& entry : entries) {
    EXPECT_TRUE(at::equal(file.view(entry.name), tensor_of(entry))) << entry.name;
  }
}

TEST_F(SafetensorsWriter, TakesStridedTensors) {
  const at::Tensor strided = at::arange(4, at::kFloat).view({2, 2}).t();
  const auto source = [&](const StoredTensor& entry) {
    return entry.name == "z" ? strided : tensor_of(entry);
  };
  stream_safetensors(path(), entries, {}, source);
  EXPECT_TRUE(at::equal(SafetensorsFile(path()).view("z"), strided));
}

TEST_F(SafetensorsWriter, HoldsOneTensorAtATime) {
  std::vector<StoredTensor> many;
  for (int i = 0; i < 8; ++i) {
    many.push_back({.name = std::to_string(i), .type = StoredType::f32, .shape = {1000}});
  }
  c10::weak_intrusive_ptr<c10::TensorImpl> last(at::Tensor().getIntrusivePtr());
  stream_safetensors(path(), many, {}, [&](const StoredTensor& entry) {
    EXPECT_TRUE(last.expired());
    const at::Tensor tensor = tensor_of(entry);
    last = c10::weak_intrusive_ptr<c10::TensorImpl>(tensor.getIntrusivePtr());
    return tensor;
  });
}

TEST_F(SafetensorsWriter, RefusesTensorsThatAreNotWhatWasStated) {
  const auto error_for = [&](const at::Tensor& tensor) {
    return message_of<UnsupportedError>([&] {
      stream_safetensors(path(), entries, {}, [&](const StoredTensor&) { return tensor; });
    });
  };
  EXPECT_THAT(error_for(at::arange(1, at::kFloat)), HasSubstr("b: can not be written"));
  EXPECT_THAT(error_for(at::arange(0, at::kHalf)), HasSubstr("expected F32 [0], found Half [0]"));
  EXPECT_THAT(error_for({}), HasSubstr("an undefined tensor"));
  EXPECT_EQ(files(), 0U);
}

TEST_F(SafetensorsWriter, FullDiskLeavesTheOldFileAlone) {
  stream_safetensors(path(), entries, {}, tensor_of);
  const std::string before = read_file(path());
  for (const uint64_t room : {uint64_t{0}, uint64_t{10}, uint64_t{before.size() - 1}}) {
    std::string error;
    {
      const FullDisk full(room);
      error = error_of_writing();
    }
    EXPECT_THAT(error, HasSubstr("x.safetensors: can not write the file"));
    EXPECT_EQ(read_file(path()), before);
    EXPECT_EQ(files(), 1U);
  }
}

TEST_F(SafetensorsWriter, ReadOnlyFolderStaysEmpty) {
  std::string error;
  {
    const ReadOnlyFolder locked(folder_.path());
    error = error_of_writing();
  }
  EXPECT_THAT(error, HasSubstr("can not create the file"));
  EXPECT_EQ(files(), 0U);
}

TEST_F(SafetensorsWriter, FailingSourceLeavesNothing) {
  EXPECT_THROW(stream_safetensors(path(), entries, {},
                                  [](const StoredTensor& entry) -> at::Tensor {
                                    if (entry.name == "a") throw std::runtime_error("no more");
                                    return tensor_of(entry);
                                  }),
               std::runtime_error);
  EXPECT_EQ(files(), 0U);
  EXPECT_THAT(error_of_writing(
                  [](const StoredTensor&) -> at::Tensor { throw FileError("source is gone"); }),
              HasSubstr("source is gone"));
}

}  // namespace
}  // namespace farskip
