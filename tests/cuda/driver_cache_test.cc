// The module cache: what is found again, what is not, damage, limits, folders that refuse, and many at once.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "src/cuda/driver/disk_cache.h"
#include "src/cuda/driver/hash.h"
#include "src/cuda/driver/module_cache.h"
#include "tests/cuda/support.h"

namespace regard::cuda {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kPlenty = 1 << 30;
const std::string kCubin = std::string("\x7f" "ELF") + std::string(1000, '\0') + "end";

std::string FileOf(const TemporaryFolder& folder, const CacheKey& key) { return folder / ("cache/" + key.File()); }

TEST(DiskCache, WhatIsStoredIsFoundAgainInAFolderThatItMakes) {
  const TemporaryFolder folder;
  DiskCache cache(folder / "cache", kPlenty);
  const CacheKey key{"a key"}, other{"another key"};
  EXPECT_FALSE(cache.Find(key));
  EXPECT_TRUE(cache.Store(key, kCubin));
  EXPECT_TRUE(cache.Store(other, ""));
  EXPECT_EQ(DiskCache(folder / "cache", kPlenty).Find(key), kCubin) << "by another process, as it were";
  EXPECT_EQ(cache.Find(other), "") << "an empty one is one, too";
  EXPECT_EQ(cache.Measure().entries, 2);
  EXPECT_EQ(fs::status(folder / "cache").permissions(), fs::perms::owner_all);
  EXPECT_EQ(cache.Clear().entries, 2);
  EXPECT_FALSE(cache.Find(key));
}

TEST(DiskCache, EveryTruncationAndEveryChangedByteIsAMissAndTheEntryIsReplaced) {
  const TemporaryFolder folder;
  DiskCache cache(folder / "cache", kPlenty);
  const CacheKey key{"some key"};
  const std::string cubin = std::string("\x7f" "ELF") + std::string(40, 'c');
  ASSERT_TRUE(cache.Store(key, cubin));
  const std::string file = FileOf(folder, key), whole = ReadFile(file);
  for (std::size_t bytes = 0; bytes < whole.size(); ++bytes) {
    WriteFile(file, whole.substr(0, bytes));
    EXPECT_FALSE(cache.Find(key)) << bytes;
    EXPECT_FALSE(fs::exists(file)) << "a broken entry goes";
  }
  for (std::size_t at = 0; at < whole.size(); ++at) {
    std::string damaged = whole;
    damaged[at] = static_cast<char>(damaged[at] + 1);
    WriteFile(file, damaged);
    EXPECT_FALSE(cache.Find(key)) << at;
  }
  WriteFile(file, whole + "x");
  EXPECT_FALSE(cache.Find(key));
  ASSERT_TRUE(cache.Store(key, cubin));
  EXPECT_EQ(cache.Find(key), cubin);
}

TEST(DiskCache, AnEntryOfAnotherKeyUnderTheSameNameIsAMiss) {
  const TemporaryFolder folder;
  DiskCache cache(folder / "cache", kPlenty);
  const CacheKey key{"mine"}, other{"not mine"};
  ASSERT_TRUE(cache.Store(other, kCubin));
  fs::rename(FileOf(folder, other), FileOf(folder, key));
  EXPECT_FALSE(cache.Find(key));
  EXPECT_TRUE(fs::exists(FileOf(folder, key))) << "it is whole: whoever it belongs to may want it";
}

TEST(DiskCache, TheOnesUsedLongestAgoGoFirst) {
  const TemporaryFolder folder;
  const CacheKey keys[] = {{"key 0"}, {"key 1"}, {"key 2"}, {"key 3"}};
  const std::string cubin(1000, 'x');
  DiskCache cache(folder / "cache", 3 * 1100);
  const auto age = [&](const CacheKey& key, int hours) {
    fs::last_write_time(FileOf(folder, key), fs::file_time_type::clock::now() - std::chrono::hours(hours));
  };
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(cache.Store(keys[i], cubin));
    age(keys[i], 10 - i);
  }
  ASSERT_TRUE(cache.Find(keys[0])) << "which makes it the freshest";
  ASSERT_TRUE(cache.Store(keys[3], cubin));
  EXPECT_TRUE(cache.Find(keys[0]));
  EXPECT_FALSE(cache.Find(keys[1]));
  EXPECT_TRUE(cache.Find(keys[2]));
  EXPECT_TRUE(cache.Find(keys[3]));
  EXPECT_LE(cache.Measure().bytes, 3 * 1100);
}

TEST(DiskCache, EntriesAboveTheLimitAreNotStoredAndALimitOfNothingStoresNothing) {
  const TemporaryFolder folder;
  DiskCache small(folder / "cache", 500), none(folder / "none", 0);
  EXPECT_FALSE(small.Store({"key"}, std::string(501, 'x')));
  EXPECT_FALSE(none.Store({"key"}, ""));
  EXPECT_FALSE(fs::exists(folder / "none"));
}

TEST(DiskCache, LeftoversOfWritersThatDiedAreRemovedOnceTheyAreOld) {
  const TemporaryFolder folder;
  DiskCache cache(folder / "cache", kPlenty);
  WriteFile(folder / "cache/old.cubin.1.2.tmp", "x");
  WriteFile(folder / "cache/new.cubin.3.4.tmp", "x");
  WriteFile(folder / "cache/notes.txt", "the user's own");
  fs::last_write_time(folder / "cache/old.cubin.1.2.tmp", fs::file_time_type::clock::now() - std::chrono::hours(2));
  ASSERT_TRUE(cache.Store({"key"}, kCubin));
  EXPECT_FALSE(fs::exists(folder / "cache/old.cubin.1.2.tmp"));
  EXPECT_TRUE(fs::exists(folder / "cache/new.cubin.3.4.tmp"));
  cache.Clear();
  EXPECT_TRUE(fs::exists(folder / "cache/notes.txt"));
}

TEST(DiskCache, AFolderThatCannotBeMadeIsSaidOnceAndOtherwiseIgnored) {
  const TemporaryFolder folder;
  WriteFile(folder / "file", "in the way");
  DiskCache cache((folder / "file") + "/cache", kPlenty);
  testing::internal::CaptureStderr();
  EXPECT_FALSE(cache.Find({"key"}));
  EXPECT_FALSE(cache.Store({"key"}, kCubin));
  EXPECT_FALSE(cache.Store({"key"}, kCubin));
  EXPECT_FALSE(cache.Find({"key"}));
  const std::string said = testing::internal::GetCapturedStderr();
  EXPECT_TRUE(said.starts_with("regard: the CUDA cache " + folder.path())) << said;
  EXPECT_NE(said.find("REGARD_CUDA_CACHE"), std::string::npos) << said;
  EXPECT_EQ(std::count(said.begin(), said.end(), '\n'), 1) << said;
}

// In a child that is nobody where the tests run as root, whom no mode keeps out. Exit code: a bit for each thing right.
TEST(DiskCache, AReadOnlyFolderStillGivesWhatItHolds) {
  const TemporaryFolder folder;
  DiskCache writer(folder / "cache", kPlenty);
  ASSERT_TRUE(writer.Store({"key"}, kCubin));
  constexpr auto kReadAndEnter = static_cast<fs::perms>(0555);
  fs::permissions(FileOf(folder, {"key"}), static_cast<fs::perms>(0444));
  fs::permissions(folder / "cache", kReadAndEnter);
  fs::permissions(folder.path(), kReadAndEnter);
  const pid_t pid = fork();
  ASSERT_GE(pid, 0);
  if (pid == 0) {
    if (geteuid() == 0 && setuid(65534) != 0) _exit(64);
    DiskCache reader(folder / "cache", kPlenty);
    testing::internal::CaptureStderr();
    const bool found = reader.Find({"key"}) == kCubin, stored = reader.Store({"other"}, kCubin);
    const bool said = testing::internal::GetCapturedStderr().find("cannot be written") != std::string::npos;
    _exit((found ? 1 : 0) | (stored ? 0 : 2) | (said ? 4 : 0));
  }
  int status = 0;
  ASSERT_EQ(waitpid(pid, &status, 0), pid);
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 7);
}

TEST(DiskCache, NoFolderIsNoCacheAndSilent) {
  DiskCache cache("", kPlenty);
  testing::internal::CaptureStderr();
  EXPECT_FALSE(cache.Store({"key"}, kCubin));
  EXPECT_FALSE(cache.Find({"key"}));
  EXPECT_EQ(cache.Clear().entries, 0);
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
}

// Eight processes store, find and evict the same few keys; whatever is found must be what was stored under that key.
TEST(DiskCache, ManyProcessesShareAFolder) {
  const TemporaryFolder folder;
  const auto cubin = [](int key) {
    return std::string(static_cast<std::size_t>(2000 + key), static_cast<char>('a' + key));
  };
  std::vector<pid_t> children;
  for (int child = 0; child < 8; ++child) {
    const pid_t pid = fork();
    ASSERT_GE(pid, 0);
    if (pid == 0) {
      DiskCache cache(folder / "cache", 9000);
      int wrong = 0;
      for (int step = 0; step < 200; ++step) {
        const int key = (step * 7 + child) % 6;
        if (step % 3 == 0) cache.Store({"key " + std::to_string(key)}, cubin(key));
        const auto found = cache.Find({"key " + std::to_string(key)});
        if (found && *found != cubin(key)) ++wrong;
      }
      _exit(wrong == 0 ? 0 : 1);
    }
    children.push_back(pid);
  }
  for (const pid_t pid : children) {
    int status = 0;
    ASSERT_EQ(waitpid(pid, &status, 0), pid);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  }
  for (const auto& entry : fs::directory_iterator(folder / "cache")) EXPECT_EQ(entry.path().extension(), ".cubin");
}

TEST(DiskCache, ATurnIsHeldByOneAtATimeAndPassesOnWithTheEntryOrTheHoldersEnd) {
  using std::chrono::milliseconds;
  const TemporaryFolder folder;
  DiskCache cache(folder / "cache", kPlenty);
  const CacheKey key{"key"}, other{"other"};
  // Whether a turn is there to be had without waiting: a lock of this process's own would not tell.
  const auto free = [&](const CacheKey& k) {
    struct flock lock {};
    lock.l_type = F_WRLCK;
    lock.l_whence = SEEK_SET;
    lock.l_start = static_cast<off_t>(Fnv64(k.text) % (1 << 20));
    lock.l_len = 1;
    const int file = open((folder / "cache/turns.lock").c_str(), O_RDWR);
    const bool got = file >= 0 && fcntl(file, F_OFD_SETLK, &lock) == 0;
    close(file);
    return got;
  };
  {
    const DiskCache::Turn turn = cache.TakeTurn(key, milliseconds(0));
    EXPECT_FALSE(free(key));
    EXPECT_TRUE(free(other));
    const DiskCache::Turn impatient = cache.TakeTurn(key, milliseconds(0));  // goes ahead without it
    ASSERT_TRUE(cache.Store(key, kCubin));
    const DiskCache::Turn finds_it_done = cache.TakeTurn(key, std::chrono::hours(1));
  }
  EXPECT_TRUE(free(key));
  DiskCache none("", kPlenty);
  const DiskCache::Turn nothing = none.TakeTurn(key, std::chrono::hours(1));
}

// Each child counts its compiles; they start together with an empty cache.
TEST(ModuleCache, ProcessesThatStartTogetherCompileAKernelOnce) {
  REGARD_NEEDS_NVRTC();
  const TemporaryFolder folder;
  int start[2];
  ASSERT_EQ(pipe(start), 0);
  std::vector<pid_t> children;
  for (int child = 0; child < 4; ++child) {
    const pid_t pid = fork();
    ASSERT_GE(pid, 0);
    if (pid == 0) {
      close(start[1]);
      char byte = 0;
      if (read(start[0], &byte, 1) != 0) _exit(2);  // returns when the parent closes its end
      DiskCache disk(folder / "cache", kPlenty);
      ModuleCache cache(RealNvrtc(), disk);
      _exit(cache.Get(Toy(), 80).origin == CubinOrigin::kCompiled ? 1 : 0);
    }
    children.push_back(pid);
  }
  close(start[0]);
  close(start[1]);
  int compiles = 0;
  for (const pid_t pid : children) {
    int status = 0;
    ASSERT_EQ(waitpid(pid, &status, 0), pid);
    ASSERT_TRUE(WIFEXITED(status));
    compiles += WEXITSTATUS(status);
  }
  EXPECT_EQ(compiles, 1);
}

TEST(ModuleCache, KeyChangesWithEverythingThatTheCodeDependsOn) {
  const NvrtcApi n12 = LoadNvrtc(Fake("nvrtc12"), 0, {}), n13 = LoadNvrtc(Fake("nvrtc13"), 0, {});
  const EmbeddedSet sources = EmbeddedSources();
  EmbeddedSet changed = sources;
  changed.hash = "0123";
  KernelInstance text = Toy();
  text.text += " ";
  std::vector<CacheKey> keys = {KeyOf(Toy(), 80, n13, sources),     KeyOf(Toy("b"), 80, n13, sources),
                                KeyOf(text, 80, n13, sources),      KeyOf(Toy(), 90, n13, sources),
                                KeyOf(Toy(), {90, true}, n13, sources), KeyOf(Toy(), 80, n12, sources),
                                KeyOf(Toy(), 80, n13, changed)};
  for (std::size_t i = 0; i < keys.size(); ++i) {
    for (std::size_t j = 0; j < i; ++j) EXPECT_NE(keys[i].File(), keys[j].File()) << i << " " << j;
  }
  EXPECT_EQ(KeyOf(Toy(), 80, n13, sources).File(), keys[0].File());
  EXPECT_EQ(keys[0].File().size(), 32 + std::string(".cubin").size());
}

TEST(ModuleCache, MemoryThenDiskThenTheCompiler) {
  REGARD_NEEDS_NVRTC();
  const TemporaryFolder folder;
  DiskCache disk(folder / "cache", kPlenty);
  std::string first;
  {
    ModuleCache cache(RealNvrtc(), disk);
    const CubinResult compiled = cache.Get(Toy(), 80);
    EXPECT_EQ(compiled.origin, CubinOrigin::kCompiled);
    EXPECT_EQ(cache.Get(Toy(), 80).origin, CubinOrigin::kMemory);
    EXPECT_EQ(cache.Get(Toy(), 90).origin, CubinOrigin::kCompiled);
    first = *compiled.cubin;
  }
  ModuleCache later(RealNvrtc(), disk);
  const CubinResult found = later.Get(Toy(), 80);
  EXPECT_EQ(found.origin, CubinOrigin::kDisk);
  EXPECT_EQ(*found.cubin, first);
  // Damage on disk is compiled over.
  const std::string file = FileOf(folder, KeyOf(Toy(), 80, RealNvrtc(), EmbeddedSources()));
  WriteFile(file, ReadFile(file).substr(0, 500));
  ModuleCache after_damage(RealNvrtc(), disk);
  EXPECT_EQ(after_damage.Get(Toy(), 80).origin, CubinOrigin::kCompiled);
  EXPECT_EQ(ModuleCache(RealNvrtc(), disk).Get(Toy(), 80).origin, CubinOrigin::kDisk);
}

TEST(ModuleCache, ThreadsThatAskForTheSameKernelCompileItOnce) {
  const NvrtcApi nvrtc = LoadNvrtc(Fake("nvrtc13"), 0, {});
  DiskCache disk("", 0);
  ModuleCache cache(nvrtc, disk);
  const int before = FakeCompiles();
  std::vector<std::thread> threads;
  std::vector<std::shared_ptr<const std::string>> cubins(8);
  for (std::size_t i = 0; i < cubins.size(); ++i) {
    threads.emplace_back([&, i] { cubins[i] = cache.Get(Toy("same"), 80).cubin; });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(FakeCompiles() - before, 1);
  for (const auto& cubin : cubins) EXPECT_EQ(cubin, cubins[0]);
}

TEST(ModuleCache, AFailedCompileIsReportedAndTriedAgain) {
  const NvrtcApi nvrtc = LoadNvrtc(Fake("nvrtc13"), 0, {});
  DiskCache disk("", 0);
  ModuleCache cache(nvrtc, disk);
  KernelInstance bad = Toy("bad");
  bad.text += "#error\n";
  const int before = FakeCompiles();
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(ErrorOf([&] { cache.Get(bad, 80); }),
              "cuda.compile: bad for sm_80: fake.cu(1): error: #error directive; source that NVRTC 13.1 compiles");
  }
  EXPECT_EQ(FakeCompiles() - before, 2);
}

TEST(ModuleCache, WhatIsNoMachineCodeStaysOffTheDisk) {
  const TemporaryFolder folder;
  const NvrtcApi nvrtc = LoadNvrtc(Fake("nvrtc13"), 0, {});
  DiskCache disk(folder / "cache", kPlenty);
  ModuleCache cache(nvrtc, disk);
  EXPECT_EQ(*cache.Get(Toy("text"), 80).cubin, Toy("text").text);
  EXPECT_EQ(disk.Measure().entries, 0);
}

TEST(ModuleCache, WithoutACompilerTheErrorSaysWhatToInstall) {
  const NvrtcApi none = LoadNvrtc("", 0, {}, false);
  DiskCache disk("", 0);
  ModuleCache cache(none, disk);
  const std::string error = ErrorOf([&] { cache.Get(Toy(), 80); });
  EXPECT_NE(error.find("pip install nvidia-cuda-nvrtc"), std::string::npos) << error;
}

}  // namespace
}  // namespace regard::cuda
