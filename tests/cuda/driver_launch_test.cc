// Contexts, functions, launches and memory, on a driver that records what it is asked to do.
#include <dlfcn.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <string>
#include <thread>
#include <vector>

#include "src/cuda/driver/context.h"
#include "src/cuda/driver/device_error.h"
#include "src/cuda/driver/functions.h"
#include "src/cuda/driver/memory.h"
#include "src/cuda/kernels/base/params.h"
#include "tests/cuda/support.h"

namespace regard::cuda {
namespace {

void* FakeContext(int device, int number) {
  void* library = dlopen(Fake("driver").c_str(), RTLD_NOW);
  return reinterpret_cast<void* (*)(int, int)>(dlsym(library, "fake_context"))(device, number);
}

abi::CUstream SomeStream() {
  static int place;
  return reinterpret_cast<abi::CUstream>(&place);
}

TEST(Context, PrimaryContextIsMadeCurrentAndPutBack) {
  FakeDriverState& driver = FreshDriver();
  {
    const ContextScope scope(1);
    EXPECT_EQ(scope.context(), FakeContext(1, 0));
    EXPECT_EQ(driver.context_stack, std::vector<void*>{FakeContext(1, 0)});
  }
  EXPECT_TRUE(driver.context_stack.empty());
  { const ContextScope again(1); }
  EXPECT_LE(driver.retained, 1) << "it is retained once in a process";
}

TEST(Context, CallersContextOnTheDeviceIsUsedAsItIs) {
  FakeDriverState& driver = FreshDriver();
  driver.context_stack = {FakeContext(0, 2)};
  {
    const ContextScope mine(0);
    EXPECT_EQ(mine.context(), FakeContext(0, 2));
    EXPECT_EQ(driver.context_stack.size(), 1u);
    const ContextScope other_device(1);
    EXPECT_EQ(other_device.context(), FakeContext(1, 0));
  }
  EXPECT_EQ(driver.context_stack, std::vector<void*>{FakeContext(0, 2)});
}

TEST(Context, DeviceThatIsNotThereIsRefused) {
  FreshDriver();
  for (const int device : {-1, 2}) {
    EXPECT_EQ(ErrorOf([&] { ContextScope scope(device); }),
              "cuda: cuDeviceGet: CUDA_ERROR_101 (as planned); the index of a GPU of this machine");
  }
}

TEST(Functions, AreLoadedOnceForAContextAndForTheDevicesArchitecture) {
  FakeDriverState& driver = FreshDriver();
  const CudaFunction a = GetFunction(0, Toy("loaded once"));
  const CudaFunction b = GetFunction(0, Toy("loaded once"));
  EXPECT_EQ(driver.modules_loaded, 1);
  EXPECT_EQ(a.handle, b.handle);
  EXPECT_EQ(a.device, 0);
  EXPECT_EQ(a.threads, 128);
  const CudaFunction c = GetFunction(1, Toy("loaded once"));
  EXPECT_EQ(driver.modules_loaded, 2);
  EXPECT_NE(c.context, a.context);
  driver.context_stack = {FakeContext(0, 3)};
  EXPECT_EQ(GetFunction(0, Toy("loaded once")).context, FakeContext(0, 3));
  EXPECT_EQ(driver.modules_loaded, 3);
}

TEST(Functions, ThatNeedMoreThan48KilobytesOfSharedMemoryOptIn) {
  FakeDriverState& driver = FreshDriver();
  KernelInstance toy = Toy("just enough");
  toy.shared_bytes = 48 * 1024;
  GetFunction(0, toy);
  EXPECT_EQ(driver.shared_opt_in, 0);
  toy = Toy("a byte more");
  toy.shared_bytes = 48 * 1024 + 1;
  GetFunction(0, toy);
  EXPECT_EQ(driver.shared_opt_in, 48 * 1024 + 1);
}

TEST(Functions, CodeThatTheDriverRefusesIsAnErrorWithItsName) {
  FakeDriverState& driver = FreshDriver();
  driver.fail_load = 209;
  EXPECT_EQ(ErrorOf([] { GetFunction(0, Toy("refused")); }),
            "cuda: cuModuleLoadData: CUDA_ERROR_209 (as planned); a driver that loads refused for sm_80");
  driver.fail_load = 0;
  EXPECT_EQ(ErrorOf([] { GetFunction(0, Toy("refused")); }), "nothing") << "a failure is not kept";
  driver.max_threads = 64;
  EXPECT_EQ(ErrorOf([] { GetFunction(0, Toy("too wide")); }),
            "cuda: too wide with blocks of 128 threads; at most the 64 that its registers admit on this GPU");
  EXPECT_EQ(driver.modules_unloaded, 1);
  EXPECT_TRUE(driver.context_stack.empty());
}

TEST(Functions, CodeForOneArchitectureAloneIsRefusedOnOthers) {
  FreshDriver();
  KernelInstance toy = Toy("specific");
  toy.arch_specific = true;
  EXPECT_EQ(ErrorOf([&] { GetFunction(1, toy); }),
            "cuda: specific on sm_87; code for exactly this architecture, which NVRTC 13.1 does not make");
}

TEST(Launch, PassesGridBlockSharedMemoryStreamAndParametersAndDoesNothingElse) {
  FakeDriverState& driver = FreshDriver();
  const CudaFunction f = GetFunction(0, Toy("launched"));
  driver.calls.clear();
  const int parameter = 4711;
  LaunchKernel(f, {7, 2, 3}, {128}, 512, SomeStream(), &parameter, sizeof(parameter));
  EXPECT_EQ(driver.calls, (std::vector<std::string>{"cuCtxPushCurrent_v2", "cuLaunchKernel", "cuCtxPopCurrent_v2"}));
  ASSERT_EQ(driver.launches.size(), 1u);
  const FakeLaunch& launch = driver.launches[0];
  EXPECT_EQ(launch.module, Toy("launched").text);
  EXPECT_EQ(std::to_array(launch.grid), (std::array<unsigned, 3>{7, 2, 3}));
  EXPECT_EQ(std::to_array(launch.block), (std::array<unsigned, 3>{128, 1, 1}));
  EXPECT_EQ(launch.shared_bytes, 512u);
  EXPECT_EQ(launch.stream, SomeStream());
  EXPECT_EQ(launch.parameter, 4711);
  EXPECT_EQ(launch.context, f.context);
}

TEST(Launch, InTheCallersContextIsOneCallOfTheDriver) {
  FakeDriverState& driver = FreshDriver();
  driver.context_stack = {FakeContext(0, 0)};
  const CudaFunction f = GetFunction(0, Toy("launched here"));
  driver.calls.clear();
  const int parameter = 0;
  for (int i = 0; i < 3; ++i) LaunchKernel(f, {1}, {128}, 0, nullptr, &parameter, sizeof(parameter));
  EXPECT_EQ(driver.calls, std::vector<std::string>(3, "cuLaunchKernel"));
  EXPECT_EQ(driver.launches.size(), 3u);
}

TEST(Launch, EmptyGridQueuesNothing) {
  FakeDriverState& driver = FreshDriver();
  const CudaFunction f = GetFunction(0, Toy("launched"));
  driver.calls.clear();
  for (const Dim3 grid : {Dim3{0, 1, 1}, Dim3{1, 0, 1}, Dim3{1, 1, 0}}) LaunchKernel(f, grid, {128}, 0, nullptr, &f, 4);
  EXPECT_TRUE(driver.calls.empty());
}

TEST(Launch, FailureNamesTheDriversError) {
  FakeDriverState& driver = FreshDriver();
  const CudaFunction f = GetFunction(0, Toy("launched"));
  driver.fail_launch = 719;
  EXPECT_EQ(ErrorOf([&] { LaunchKernel(f, {1}, {128}, 0, nullptr, &f, 4); }),
            "cuda: cuLaunchKernel: CUDA_ERROR_719 (as planned); success");
  EXPECT_TRUE(driver.context_stack.empty());
}

TEST(Launch, ParametersOfAnotherSizeThanTheKernelsAreRefused) {
  FreshDriver();
  CudaFunction f = GetFunction(0, Toy("launched"));
  f.parameter_bytes = 16;
  EXPECT_EQ(ErrorOf([&] { LaunchKernel(f, {1}, {128}, 0, nullptr, &f, 24); }),
            "cuda: 24 bytes of parameters; the 16 bytes that the kernel takes");
}

TEST(Memory, BuffersCopyInsideThemselvesAndGiveBackWhatTheyTook) {
  FakeDriverState& driver = FreshDriver();
  {
    DeviceBuffer buffer(0, 100);
    EXPECT_EQ(driver.allocated_bytes, 100);
    buffer.Fill(7, SomeStream());
    const std::string text = "hello";
    buffer.CopyFromHost(text.data(), text.size(), 95);
    std::string back(6, '\0');
    buffer.CopyToHost(back.data(), 6, 94);
    EXPECT_EQ(back, "\7hello");
    EXPECT_EQ(ErrorOf([&] { buffer.CopyToHost(back.data(), 6, 95); }),
              "bytes: 95 + 6; at most the 100 bytes of the buffer");
    EXPECT_EQ(ErrorOf([&] { buffer.CopyFromHost(back.data(), 1, ~std::size_t{0}); }).substr(0, 6), "bytes:");
    EXPECT_EQ(DeviceOfAddress(buffer.data()), 0);
    DeviceBuffer moved = std::move(buffer);
    EXPECT_EQ(moved.bytes(), 100u);
    EXPECT_EQ(buffer.bytes(), 0u);
  }
  EXPECT_EQ(driver.allocated_bytes, 0);
  const DeviceBuffer empty(0, 0);
  EXPECT_EQ(empty.data(), nullptr);
  int on_host = 0;
  EXPECT_EQ(DeviceOfAddress(&on_host), -1);
  EXPECT_EQ(DeviceOfAddress(nullptr), -1);
  EXPECT_TRUE(driver.context_stack.empty());
}

TEST(Memory, WhereThereIsNotEnoughTheErrorSaysHowMuchIsFree) {
  FreshDriver().fail_alloc = 2;
  EXPECT_EQ(ErrorOf([] { DeviceBuffer buffer(0, 5000); }),
            "memory: 5000 bytes on cuda:0; at most the 1000 bytes that are free there");
}

TEST(Memory, StreamsAndTimersWorkOnTheirDevice) {
  FakeDriverState& driver = FreshDriver();
  {
    const OwnedStream stream(1);
    EventTimer timer(1);
    timer.Begin(stream.get());
    timer.End(stream.get());
    EXPECT_DOUBLE_EQ(timer.Seconds(), 2.5e-3);
    stream.Synchronize();
  }
  EXPECT_EQ(std::count(driver.calls.begin(), driver.calls.end(), "cuEventDestroy_v2"), 2);
  EXPECT_EQ(std::count(driver.calls.begin(), driver.calls.end(), "cuStreamDestroy_v2"), 1);
  EXPECT_TRUE(driver.context_stack.empty());
}

TEST(DeviceError, IsReportedByTheNextCheckAndCleared) {
  FreshDriver();
  DeviceErrorFlag& flag = DeviceErrorFlag::Of(0);
  EXPECT_EQ(&flag, &DeviceErrorFlag::Of(0));
  EXPECT_NE(&flag, &DeviceErrorFlag::Of(1));
  flag.Check();
  *flag.device_pointer() |= kBadPage | kBadLeftpad;
  EXPECT_EQ(flag.Read(), kBadPage | kBadLeftpad);
  EXPECT_EQ(ErrorOf([&] { flag.Check(); }),
            "cuda.tables: cuda:0: an earlier launch met bad entries and skipped them: "
            "block_table or kv_indices names a page that is not there; leftpad is outside [0, seq_kv]; tables and lengths within the plan's bounds");
  EXPECT_EQ(flag.Read(), 0u);
  flag.Check();
}

TEST(DeviceError, EveryBitHasWords) {
  for (unsigned bit = kBadSeqlensQ; bit <= kBadRotary; bit <<= 1) {
    EXPECT_EQ(DeviceErrorText(bit).find("unknown"), std::string::npos) << bit;
    EXPECT_FALSE(DeviceErrorText(bit).empty());
  }
  EXPECT_EQ(DeviceErrorText(0), "");
  EXPECT_EQ(DeviceErrorText(1u << 31), "unknown bits 2147483648");
}

}  // namespace
}  // namespace regard::cuda
