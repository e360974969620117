// Every detector finds the bug planted for it, in the words it should use, and says nothing of the corrected twin.
#include <gtest/gtest.h>

#include <cctype>
#include <ostream>
#include <string>
#include <vector>

#include "ptx/memory.h"
#include "tests/emulator/device_array.h"
#include "tests/emulator/planted.h"

namespace regard::emulator {

void PrintTo(const Planted& planted, std::ostream* os) {
  *os << planted.name;
}

namespace {

struct Call {
  void (*kernel)(const PlantedParams&);
  PlantedParams params;
};

std::optional<EmulatorReport> LaunchPlanted(void (*kernel)(const PlantedParams&), const Planted& planted, int arch,
                                            int host_threads) {
  const DeviceArray<float> in(std::vector<float>(64, 1.0f), "in");
  const DeviceArray<float> out(64, "out");
  DeviceArray<float> released(64, "released");
  released.Release();
  const Call call{kernel, {in.address(), out.address(), released.address()}};
  LaunchShape shape;
  shape.kernel = planted.name;
  shape.grid[1] = 2;
  shape.threads = planted.threads;
  shape.shared_bytes = kPlantedShared;
  shape.arch = arch;
  LaunchOptions options;
  options.host_threads = host_threads;
  const auto entry = [](const void* params) {
    const Call& c = *static_cast<const Call*>(params);
    c.kernel(c.params);
  };
  return Launch(shape, entry, &call, options).report;
}

// "planted.cc:17" becomes "planted.cc".
std::string WithoutLines(std::string text) {
  for (std::size_t at = text.find(".cc:"); at != std::string::npos; at = text.find(".cc:", at + 1)) {
    std::size_t end = at + 4;
    while (end < text.size() && std::isdigit(static_cast<unsigned char>(text[end]))) ++end;
    text.erase(at + 3, end - at - 3);
  }
  return text;
}

class PlantedBug : public testing::TestWithParam<Planted> {};

TEST_P(PlantedBug, IsFoundAndItsCorrectedTwinIsClean) {
  const Planted& planted = GetParam();
  const auto report = LaunchPlanted(planted.wrong, planted, planted.arch, 1);
  ASSERT_TRUE(report) << planted.name << " was not found";
  EXPECT_EQ(report->finding, planted.finding) << report->Text();
  const std::string text = WithoutLines(report->Text());
  EXPECT_NE(text.find(planted.words), std::string::npos) << text << "\nlacks: " << planted.words;
  EXPECT_EQ(report->kernel, planted.name);
  EXPECT_EQ(report->block[1], 0) << "the launch should have stopped at its first block";

  const auto clean = LaunchPlanted(planted.right, planted, 80, 1);
  EXPECT_FALSE(clean) << clean->Text();
}

TEST_P(PlantedBug, IsFoundByEveryHostThread) {
  const Planted& planted = GetParam();
  const auto report = LaunchPlanted(planted.wrong, planted, planted.arch, 2);
  ASSERT_TRUE(report) << planted.name << " was not found";
  EXPECT_EQ(report->finding, planted.finding) << report->Text();
  const auto clean = LaunchPlanted(planted.right, planted, 80, 2);
  EXPECT_FALSE(clean) << clean->Text();
}

std::string NameOf(const testing::TestParamInfo<Planted>& info) {
  std::string name;
  bool upper = true;
  for (const char* c = info.param.name; *c; ++c) {
    if (std::isalnum(static_cast<unsigned char>(*c))) {
      name += upper ? static_cast<char>(std::toupper(static_cast<unsigned char>(*c))) : *c;
      upper = false;
    } else {
      upper = *c != '\'';
    }
  }
  return name;
}

INSTANTIATE_TEST_SUITE_P(InMemory, PlantedBug, testing::ValuesIn(PlantedInMemory().begin(), PlantedInMemory().end()),
                         NameOf);
INSTANTIATE_TEST_SUITE_P(BetweenThreads, PlantedBug,
                         testing::ValuesIn(PlantedBetweenThreads().begin(), PlantedBetweenThreads().end()), NameOf);
INSTANTIATE_TEST_SUITE_P(InCollectives, PlantedBug,
                         testing::ValuesIn(PlantedInCollectives().begin(), PlantedInCollectives().end()), NameOf);

int bad_line = 0;
void StoresThroughNull(const PlantedParams&) {
  bad_line = __LINE__ + 1;
  cuda::Global<float>(nullptr).Store(0, 1);
}

TEST(PlantedBugs, AreReportedWithTheirLine) {
  const Planted planted{"null", StoresThroughNull, StoresThroughNull, Finding::kGlobalBounds, ""};
  const auto report = LaunchPlanted(planted.wrong, planted, 80, 1);
  ASSERT_TRUE(report);
  EXPECT_EQ(report->Text(), "global memory out of bounds: null, block (0, 0, 0), thread 0, planted_test.cc:" +
                                std::to_string(bad_line) + ": 4 bytes at a null pointer");
}

// Every kind of finding has a planted bug.
TEST(PlantedBugs, CoverEveryDetector) {
  std::vector<bool> covered(static_cast<std::size_t>(Finding::kUnknownInstruction) + 1);
  for (const auto& list : {PlantedInMemory(), PlantedBetweenThreads(), PlantedInCollectives()}) {
    for (const Planted& planted : list) covered[static_cast<std::size_t>(planted.finding)] = true;
  }
  for (std::size_t f = 0; f < covered.size(); ++f) EXPECT_TRUE(covered[f]) << Name(static_cast<Finding>(f));
}

}  // namespace
}  // namespace regard::emulator
