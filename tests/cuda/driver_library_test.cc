// Where NVRTC is looked for, which one is taken, and the words where there is none; the same for the driver.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include "src/cuda/driver/driver_api.h"
#include "src/cuda/driver/library.h"
#include "src/cuda/driver/nvrtc.h"
#include "tests/cuda/support.h"

namespace regard::cuda {
namespace {

namespace fs = std::filesystem;

// Without /usr/local/cuda, which a machine may have.
std::vector<std::string> FoldersOf(const SearchEnvironment& e) {
  std::vector<std::string> folders = NvrtcFolders(e);
  std::erase_if(folders, [](const std::string& f) { return f.starts_with("/usr/local/cuda"); });
  return folders;
}

TEST(Library, EmptyEnvironmentLeadsNowhere) { EXPECT_TRUE(FoldersOf({}).empty()); }

TEST(Library, NvrtcIsLookedForInToolkitsThenInTheSitePackagesThatTheEnvironmentLeadsTo) {
  const TemporaryFolder root;
  const auto folder = [&](const std::string& name) {
    fs::create_directories(root / name);
    return root / name;
  };
  const std::vector<std::string> wanted = {
      folder("toolkit/lib64"),
      folder("toolkit/targets/x86_64-linux/lib"),
      folder("wheel/site-packages/nvidia/cu13/lib"),
      folder("venv/lib/python3.12/site-packages/nvidia/cuda_nvrtc/lib"),
      folder("venv/lib/python3.11/site-packages/nvidia/cu13/lib"),
      folder("path1/nvidia/cu14/lib"),
      folder("conda/lib"),
      folder("home/.local/lib/python3.10/site-packages/nvidia/cu13/lib"),
      folder("prefix/lib/python3.11/dist-packages/nvidia/cu13/lib"),
  };
  folder("venv/lib/python3.11/site-packages/nvidia/cudnn/lib");  // no home of NVRTC
  WriteFile(root / "prefix/bin/python3", "");
  SearchEnvironment e;
  e.cuda_homes = {root / "toolkit", root / "toolkit/", root / "absent"};
  e.own_library = root / "wheel/site-packages/regard/_core.so";
  e.virtual_env = root / "venv";
  e.python_path = ":" + (root / "path1") + "::" + (root / "absent") + ":";
  e.conda_prefix = root / "conda";
  e.home = root / "home";
  e.path = (root / "absent") + ":" + (root / "prefix/bin");
  EXPECT_EQ(FoldersOf(e), wanted);
}

TEST(Library, NvrtcFilesAreListedNewestFirstByWholeVersionNumbers) {
  const TemporaryFolder folder;
  for (const char* name : {"libnvrtc.so.9.0", "libnvrtc.so.11.2", "libnvrtc.so.12", "libnvrtc.so.13",
                           "libnvrtc.so.13.5.1", "libnvrtc.so.alpha", "libnvrtc.so", "libnvrtc-builtins.so.13.5", "libnvrtc.alt.so.12"}) {
    WriteFile(folder / name, "");
  }
  std::vector<int> majors;
  for (const NvrtcFile& file : NvrtcFilesIn(folder.path())) majors.push_back(file.major);
  EXPECT_EQ(majors, (std::vector<int>{13, 12, 11, 9}));
  EXPECT_TRUE(NvrtcFilesIn(folder / "absent").empty());
}

// A folder with copies of the fakes under the names that packages give them.
void Put(const TemporaryFolder& folder, const std::string& fake, const std::string& name) {
  fs::create_directories(fs::path(folder / name).parent_path());
  fs::copy_file(Fake(fake), folder / name);
}

TEST(Nvrtc, NewestFoundIsTakenWhereNoDriverSetsABound) {
  const TemporaryFolder folder;
  Put(folder, "nvrtc12", "a/libnvrtc.so.12");
  Put(folder, "nvrtc13", "a/libnvrtc.so.13");
  const NvrtcApi api = LoadNvrtc("", 0, {folder / "a"}, false);
  ASSERT_TRUE(api.status.ok) << api.status.reason;
  EXPECT_EQ(api.VersionText(), "13.1");
  EXPECT_EQ(api.path, folder / "a/libnvrtc.so.13");
}

TEST(Nvrtc, TheOneThatTheDriverCanLoadCodeOfIsTaken) {
  const TemporaryFolder folder;
  Put(folder, "nvrtc13", "a/libnvrtc.so.13");
  Put(folder, "nvrtc12", "b/libnvrtc.so.12");
  const NvrtcApi api = LoadNvrtc("", 12040, {folder / "a", folder / "b"}, false);
  ASSERT_TRUE(api.status.ok) << api.status.reason;
  EXPECT_EQ(api.major, 12);
  EXPECT_EQ(LoadNvrtc("", 13000, {folder / "a", folder / "b"}, false).major, 13);
  EXPECT_EQ(LoadNvrtc("", 14000, {folder / "b", folder / "a"}, false).major, 12) << "the first that fits";
}

TEST(Nvrtc, OneThatIsTooNewForTheDriverIsRefusedWithTheOneThatFits) {
  const TemporaryFolder folder;
  Put(folder, "nvrtc13", "libnvrtc.so.13");
  for (const std::string& file : {std::string(), folder / "libnvrtc.so.13"}) {
    const Status status = LoadNvrtc(file, 12040, {folder.path()}, false).status;
    EXPECT_FALSE(status.ok);
    EXPECT_EQ(status.reason, "NVRTC 13 makes code for drivers of CUDA 13; this driver is of CUDA 12.4");
    EXPECT_EQ(status.remedy, "pip install nvidia-cuda-nvrtc-cu12, or install a newer NVIDIA driver");
  }
}

TEST(Nvrtc, NoneFoundSaysWhereItWasLookedForAndWhatToInstall) {
  const TemporaryFolder a, b;
  const NvrtcApi api = LoadNvrtc("", 0, {a.path(), b.path()}, false);
  EXPECT_FALSE(api.status.ok);
  EXPECT_EQ(api.status.reason,
            "no NVRTC found (libnvrtc.so.12 or later; looked at " + a.path() + ", " + b.path() + ")");
  EXPECT_EQ(api.status.remedy, "pip install nvidia-cuda-nvrtc, or set REGARD_NVRTC to a libnvrtc.so");
  EXPECT_EQ(api.tried, (std::vector<std::string>{a.path(), b.path()}));
}

TEST(Nvrtc, TooOldIncompleteAndBrokenOnesAreRefusedWithTheReason) {
  const TemporaryFolder folder;
  Put(folder, "nvrtc11", "old/libnvrtc.so.11.2");
  Put(folder, "nvrtc_without_log", "cut/libnvrtc.so.13");
  WriteFile(folder / "broken/libnvrtc.so.13", "no library");
  EXPECT_EQ(LoadNvrtc("", 0, {folder / "old"}, false).status.reason, "NVRTC 11 is too old, regard needs 12.0");
  EXPECT_NE(LoadNvrtc("", 0, {folder / "cut"}, false).status.reason.find("it has no nvrtcGetProgramLogSize"),
            std::string::npos);
  const std::string broken = LoadNvrtc("", 0, {folder / "broken"}, false).status.reason;
  EXPECT_NE(broken.find(folder / "broken/libnvrtc.so.13"), std::string::npos) << broken;
  Put(folder, "nvrtc12", "good/libnvrtc.so.12");
  EXPECT_TRUE(LoadNvrtc("", 0, {folder / "old", folder / "cut", folder / "broken", folder / "good"}, false).status.ok);
}

TEST(Nvrtc, AFileByNameIsTheOnlyOneTried) {
  const TemporaryFolder folder;
  Put(folder, "nvrtc12", "libnvrtc.so.12");
  const NvrtcApi api = LoadNvrtc("/absent/libnvrtc.so", 0, {folder.path()}, false);
  EXPECT_FALSE(api.status.ok);
  EXPECT_TRUE(api.status.reason.starts_with("REGARD_NVRTC=/absent/libnvrtc.so cannot be used: ")) << api.status.reason;
  EXPECT_NE(api.status.remedy.find("or unset it"), std::string::npos);
  const std::string old = LoadNvrtc(Fake("nvrtc11"), 0, {}).status.reason;
  EXPECT_NE(old.find("NVRTC 11.8, regard needs 12.0"), std::string::npos) << old;
}

TEST(Nvrtc, ArchitecturesThatItDoesNotKnowAreRefusedWithTheNvrtcThatDoes) {
  const NvrtcApi old = LoadNvrtc(Fake("nvrtc12"), 0, {}), now = LoadNvrtc(Fake("nvrtc13"), 0, {});
  EXPECT_TRUE(CanCompile(now, 75).ok);
  EXPECT_TRUE(CanCompile(now, {90, true}).ok);
  const Status volta = CanCompile(now, 70);
  EXPECT_EQ(volta.reason, "NVRTC 13.1 starts at sm_75, this is sm_70");
  EXPECT_EQ(volta.remedy, "an NVRTC 12: pip install nvidia-cuda-nvrtc-cu12");
  EXPECT_EQ(CanCompile(old, 120).reason, "NVRTC 12.4 has no sm_120 (it has sm_50, sm_80, sm_86, sm_90)");
  EXPECT_EQ(CanCompile(old, 120).remedy, "a newer NVRTC: pip install --upgrade nvidia-cuda-nvrtc");
  EXPECT_EQ(CanCompile(LoadNvrtc("", 0, {}, false), 80).reason.substr(0, 14), "no NVRTC found");
}

TEST(Nvrtc, ADeviceGetsCodeOfItsOwnArchitectureOrOfTheNearestOlderOneOfItsGeneration) {
  const NvrtcApi api = LoadNvrtc(Fake("nvrtc13"), 0, {});  // 75, 80, 86, 90
  EXPECT_EQ(ArchFor(api, 86, false), Arch(86));
  EXPECT_EQ(ArchFor(api, 89, false), Arch(86));
  EXPECT_EQ(ArchFor(api, 90, true), Arch(90, true));
  EXPECT_EQ(ArchFor(api, 89, true), Arch(86)) << "code for one architecture alone runs on no other";
  EXPECT_EQ(ArchFor(api, 70, false), Arch(70)) << "nothing older: refused later, by its own name";
  EXPECT_EQ(ArchFor(api, 100, false), Arch(100)) << "code of another generation does not run";
}

TEST(Nvrtc, ArchitecturesAreReadFromTheirNames) {
  EXPECT_EQ(ParseArch("--arch", "sm_80"), Arch(80));
  EXPECT_EQ(ParseArch("--arch", "sm_90a"), Arch(90, true));
  EXPECT_EQ(ParseArch("--arch", "120"), Arch(120));
  EXPECT_EQ(Arch(90, true).Name(), "sm_90a");
  for (const char* text : {"", "sm_", "sm_8x", "ampere", "sm_90ab", "sm_-80", "compute_80", "sm_5", "sm_12345"}) {
    EXPECT_EQ(ErrorOf([&] { ParseArch("--arch", text); }),
              "--arch: " + std::string(text) + "; an architecture such as sm_80, sm_90 or sm_90a");
  }
}

TEST(Driver, AGoodOneIsStartedAndSaysItsVersionAndFile) {
  const DriverApi api = LoadDriver(Fake("driver"));
  ASSERT_TRUE(api.status.ok) << api.status.reason;
  EXPECT_EQ(api.version, 13000);
  EXPECT_EQ(api.path, Fake("driver"));
  EXPECT_EQ(VersionText(12040), "12.4");
}

TEST(Driver, MissingOldEmptyAndStrangeOnesSayWhyAndWhatToDo) {
  const Status absent = LoadDriver("/absent/libcuda.so.1").status;
  EXPECT_TRUE(absent.reason.starts_with("REGARD_LIBCUDA=/absent/libcuda.so.1 cannot be loaded: ")) << absent.reason;
  const Status old = LoadDriver(Fake("old_driver")).status;
  EXPECT_EQ(old.reason, "the CUDA driver is of CUDA 11.8, regard needs 12.0");
  EXPECT_EQ(old.remedy, "install an NVIDIA driver of version 525 or later (CUDA 12.0)");
  const Status empty = LoadDriver(Fake("driver_without_gpu")).status;
  EXPECT_EQ(empty.reason, "the CUDA driver finds no GPU");
  EXPECT_EQ(empty.remedy, "check nvidia-smi and CUDA_VISIBLE_DEVICES");
  EXPECT_NE(LoadDriver(Fake("driver_without_symbols")).status.reason.find(" has no cu"), std::string::npos);
  EXPECT_NE(LoadDriver(Fake("nvrtc13")).status.reason.find("is no CUDA driver"), std::string::npos);
}

TEST(Driver, AMachineWithoutOneIsToldWhatToInstall) {
  const DriverApi api = LoadDriver("");
  if (api.status.ok || api.version != 0) GTEST_SKIP() << "this machine has a CUDA driver";
  EXPECT_EQ(api.status.reason, "no CUDA driver found (libcuda.so.1)");
  EXPECT_EQ(api.status.remedy, "install the NVIDIA driver, or set REGARD_BACKENDS=cpu to silence");
}

}  // namespace
}  // namespace regard::cuda
