// CPU detection: cpuid and xgetbv on x86-64, the ELF auxiliary vector on aarch64, /sys for caches.

#include "src/core/cpu_detect.h"

#include <sched.h>
#include <unistd.h>

#include <cstdint>
#include <fstream>

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace regard {
namespace {

#if defined(__x86_64__)
struct CpuId {
  std::uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
};

// Zeros where the CPU has no such leaf. Leaf and bit numbers: Intel SDM volume 2A, CPUID.
CpuId Leaf(std::uint32_t leaf, std::uint32_t subleaf = 0) {
  CpuId r;
  if (!__get_cpuid_count(leaf, subleaf, &r.eax, &r.ebx, &r.ecx, &r.edx)) return {};
  return r;
}

bool Bit(std::uint32_t word, int bit) { return (word >> bit & 1u) != 0; }

// Register state that the operating system saves (XCR0). Only legal where cpuid reports OSXSAVE.
std::uint64_t ExtendedControl() {
  std::uint32_t low, high;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return static_cast<std::uint64_t>(high) << 32 | low;
}
#endif

// The first line of a small text file; "" where it cannot be read.
std::string FirstLine(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

// "32K", "1024K", "32M" in bytes; 0 where it is no size.
std::int64_t ParseCacheSize(const std::string& text) {
  std::int64_t value = 0;
  std::size_t i = 0;
  for (; i < text.size() && text[i] >= '0' && text[i] <= '9' && value < (1 << 30); ++i) {
    value = value * 10 + (text[i] - '0');
  }
  if (i == text.size()) return value;
  return text[i] == 'K' ? value << 10 : text[i] == 'M' ? value << 20 : text[i] == 'G' ? value << 30 : 0;
}

// A CPU that this process may run on.
int SomeCpu() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) != 0) return 0;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &set)) return cpu;
  }
  return 0;
}

}  // namespace

std::vector<Isa> DetectIsas() {
  std::vector<Isa> isas = {Isa::kScalar};
#if defined(__x86_64__)
  const CpuId basic = Leaf(1);
  const CpuId extended = Leaf(7, 0);
  const bool os_saves = Bit(basic.ecx, 27);
  const std::uint64_t state = os_saves ? ExtendedControl() : 0;
  constexpr std::uint64_t kYmmState = 0x06;  // SSE and AVX halves
  constexpr std::uint64_t kZmmState = 0xe6;  // those, mask registers, upper halves, registers 16 to 31
  const bool avx = (state & kYmmState) == kYmmState && Bit(basic.ecx, 28);
  const bool avx2 = avx && Bit(extended.ebx, 5) && Bit(basic.ecx, 12) && Bit(basic.ecx, 29);  // AVX2, FMA, F16C
  if (!avx2) return isas;
  isas.push_back(Isa::kAvx2);
  const bool avx512 = (state & kZmmState) == kZmmState && Bit(extended.ebx, 16) && Bit(extended.ebx, 30) &&
                      Bit(extended.ebx, 17) && Bit(extended.ebx, 31);  // F, BW, DQ, VL
  if (!avx512) return isas;
  isas.push_back(Isa::kAvx512);
  const bool bf16 = extended.eax >= 1 && Bit(Leaf(7, 1).eax, 5) && Bit(extended.ecx, 1);  // and VBMI
  if (bf16) isas.push_back(Isa::kAvx512Bf16);
#elif defined(__aarch64__)
  if ((getauxval(AT_HWCAP) & HWCAP_ASIMD) != 0) isas.push_back(Isa::kNeon);
#endif
  return isas;
}

std::string DetectCpuName() {
  std::string name;
#if defined(__x86_64__)
  // The brand string: 48 characters in three leaves.
  constexpr std::uint32_t kFirstBrandLeaf = 0x80000002u, kLastBrandLeaf = 0x80000004u;
  if (Leaf(0x80000000u).eax >= kLastBrandLeaf) {
    for (std::uint32_t leaf = kFirstBrandLeaf; leaf <= kLastBrandLeaf; ++leaf) {
      const CpuId r = Leaf(leaf);
      for (const std::uint32_t word : {r.eax, r.ebx, r.ecx, r.edx}) {
        for (int byte = 0; byte < 4; ++byte) name += static_cast<char>(word >> (8 * byte) & 0xffu);
      }
    }
    name.resize(name.find('\0') == std::string::npos ? name.size() : name.find('\0'));
  }
#elif defined(__aarch64__)
  name = FirstLine("/sys/firmware/devicetree/base/model");
  if (!name.empty() && name.back() == '\0') name.pop_back();
#endif
  const std::size_t first = name.find_first_not_of(' ');
  const std::size_t last = name.find_last_not_of(' ');
  if (first != std::string::npos) return name.substr(first, last - first + 1);
#if defined(__x86_64__)
  return "x86-64 CPU";
#elif defined(__aarch64__)
  return "aarch64 CPU";
#else
  return "generic CPU";
#endif
}

void DetectCaches(DeviceCaps* caps) {
  std::int64_t* const level_bytes[] = {&caps->l1_bytes, &caps->l2_bytes, &caps->l3_bytes};
  const std::string base = "/sys/devices/system/cpu/cpu" + std::to_string(SomeCpu()) + "/cache/index";
  bool found = false;
  constexpr int kMostCaches = 16;
  for (int i = 0; i < kMostCaches; ++i) {
    const std::string dir = base + std::to_string(i);
    const std::string level = FirstLine(dir + "/level");
    if (level.empty()) break;
    if (FirstLine(dir + "/type") == "Instruction") continue;
    const std::int64_t bytes = ParseCacheSize(FirstLine(dir + "/size"));
    if (level.size() != 1 || level[0] < '1' || level[0] > '3' || bytes <= 0) continue;
    *level_bytes[level[0] - '1'] = bytes;
    found = true;
  }
#if defined(_SC_LEVEL1_DCACHE_SIZE)
  if (found) return;
  constexpr int kNames[] = {_SC_LEVEL1_DCACHE_SIZE, _SC_LEVEL2_CACHE_SIZE, _SC_LEVEL3_CACHE_SIZE};
  for (int level = 0; level < 3; ++level) {
    const long bytes = sysconf(kNames[level]);
    if (bytes > 0) *level_bytes[level] = bytes;
  }
#endif
}

}  // namespace regard
