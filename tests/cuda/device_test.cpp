// Device memory, copies and their errors.
#include "backend/cuda/device.hpp"

#include <utility>
#include <vector>

#include "cuda_test.hpp"
#include "fastkv/error.hpp"

namespace fastkv::test {
namespace {

TEST(Device, CopiesComeBackAsTheyWere) {
  cuda::Stream stream;
  std::vector<int> values(100003);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = int(i * 7);
  const auto array = cuda::to_device<int>(stream, values, "values");
  EXPECT_EQ(array.size(), values.size());
  EXPECT_EQ(array.bytes(), values.size() * sizeof(int));
  EXPECT_EQ(cuda::to_host(stream, array.data(), array.size()), values);
  EXPECT_EQ(cuda::to_host(stream, array.data() + 5, 1)[0], 35);
}

TEST(Device, NothingTakesNoMemory) {
  cuda::Stream stream;
  const auto array = cuda::to_device<int>(stream, {}, "nothing");
  EXPECT_EQ(array.data(), nullptr);
  EXPECT_TRUE(cuda::to_host(stream, array.data(), 0).empty());
}

TEST(Device, BuffersMove) {
  cuda::Stream stream;
  cuda::DeviceBuffer a(stream, 64, "a"), b;
  void* data = a.data();
  b = std::move(a);
  EXPECT_EQ(b.data(), data);
  EXPECT_EQ(b.bytes(), 64u);
  EXPECT_EQ(a.data(), nullptr);  // moved from: empty, by contract
  const cuda::DeviceBuffer c(std::move(b));
  EXPECT_EQ(c.data(), data);
}

TEST(Device, WithoutRoomTheErrorSaysWhatForAndHowMuch) {
  cuda::Stream stream;
  try {
    const cuda::DeviceBuffer buffer(stream, std::size_t(1) << 45, "a very large buffer");
    ADD_FAILURE() << "no error";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::out_of_memory);
    const std::string text = error.what();
    EXPECT_EQ(text.rfind("a very large buffer: 35184372088832 bytes of device memory wanted, ", 0), 0u) << text;
    EXPECT_EQ(text.find('\n'), std::string::npos);
  }
  cuda::check_cuda(cudaGetLastError(), "the error is not left behind");
}

TEST(Device, FailuresBecomeErrorsOfTheirKind) {
  const auto code_of = [](cudaError_t status) {
    try {
      cuda::check_cuda(status, "a step");
    } catch (const Error& error) {
      EXPECT_EQ(std::string(error.what()).rfind("CUDA: a step: ", 0), 0u) << error.what();
      return error.code();
    }
    return ErrorCode::cancelled;
  };
  EXPECT_EQ(code_of(cudaErrorMemoryAllocation), ErrorCode::out_of_memory);
  EXPECT_EQ(code_of(cudaErrorNoDevice), ErrorCode::unsupported);
  EXPECT_EQ(code_of(cudaErrorInsufficientDriver), ErrorCode::unsupported);
  EXPECT_EQ(code_of(cudaErrorInvalidValue), ErrorCode::internal);
  EXPECT_EQ(code_of(cudaSuccess), ErrorCode::cancelled) << "nothing thrown";
}

}  // namespace
}  // namespace fastkv::test
