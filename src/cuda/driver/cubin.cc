#include "src/cuda/driver/cubin.h"

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <cstring>
#include <vector>

#include "regard/status.h"

namespace regard::cuda {
namespace {

// The parts of ELF-64 (little endian) that a cubin needs; offsets as in the System V ABI.
struct ElfHeader {
  unsigned char ident[16];
  std::uint16_t type, machine;
  std::uint32_t version;
  std::uint64_t entry, program_headers, section_headers;
  std::uint32_t flags;
  std::uint16_t header_bytes, program_header_bytes, program_header_count;
  std::uint16_t section_header_bytes, section_count, section_names;
};
static_assert(sizeof(ElfHeader) == 64);
struct Section {
  std::uint32_t name, type;
  std::uint64_t flags, address, offset, bytes;
  std::uint32_t link, info;
  std::uint64_t alignment, entry_bytes;
};
static_assert(sizeof(Section) == 64);
struct ElfSymbol {
  std::uint32_t name;
  unsigned char info, other;
  std::uint16_t section;
  std::uint64_t value, bytes;
};
static_assert(sizeof(ElfSymbol) == 24);

constexpr std::uint16_t kMachineCuda = 190;
constexpr std::uint32_t kSectionNoBits = 8;
constexpr unsigned char kAbiVersionCuda13 = 8;
constexpr unsigned kReservedSharedBytes = 1024;  // of a block, on sm_90 and later part of the section

// Attributes of .nv.info and their forms.
constexpr unsigned char kFormSized = 4;  // the u16 is the payload's size; otherwise it is the value
constexpr unsigned char kMaxThreads = 0x05, kFrameSize = 0x11, kRegisterCount = 0x2f, kParameterBytes = 0x19,
                        kBarriers = 0x4c;

[[noreturn]] void Refuse(const std::string& what) {
  throw Error("cuda.cubin", what, "a whole cubin with an entry point regard_kernel");
}

template <class T>
T ReadAt(std::string_view bytes, std::uint64_t offset, const char* what) {
  if (offset > bytes.size() || bytes.size() - offset < sizeof(T)) Refuse(std::string(what) + " lies outside the file");
  T value;
  std::memcpy(&value, bytes.data() + offset, sizeof(T));
  return value;
}

class Elf {
 public:
  explicit Elf(std::string_view file) : file_(file), header(ReadAt<ElfHeader>(file, 0, "the ELF header")) {
    if (std::memcmp(header.ident, "\x7f" "ELF\x02\x01", 6) != 0 || header.machine != kMachineCuda) {
      Refuse("the bytes are no ELF file for a GPU");
    }
    if (header.section_header_bytes != sizeof(Section)) Refuse("section headers of an unknown size");
    for (std::uint64_t i = 0; i < header.section_count; ++i) {
      sections.push_back(ReadAt<Section>(file, header.section_headers + i * sizeof(Section), "a section header"));
    }
    if (header.section_names >= sections.size()) Refuse("there are no section names");
  }
  std::string_view Bytes(const Section& s) const {
    if (s.type == kSectionNoBits) return {};
    if (s.offset > file_.size() || s.bytes > file_.size() - s.offset) Refuse("a section lies outside the file");
    return file_.substr(s.offset, s.bytes);
  }
  std::string_view TextAt(const Section& strings, std::uint64_t at) const {
    const std::string_view bytes = Bytes(strings);
    if (at >= bytes.size()) return {};
    return bytes.substr(at, bytes.find('\0', at) - at);
  }
  const Section* Find(std::string_view name) const {
    for (const Section& s : sections) {
      if (TextAt(sections[header.section_names], s.name) == name) return &s;
    }
    return nullptr;
  }
  std::optional<std::uint32_t> SymbolIndex(std::string_view name) const {
    const Section* table = Find(".symtab");
    if (table == nullptr || table->link >= sections.size()) return std::nullopt;
    const std::string_view bytes = Bytes(*table);
    for (std::uint32_t i = 0; (i + std::uint64_t{1}) * sizeof(ElfSymbol) <= bytes.size(); ++i) {
      const auto symbol = ReadAt<ElfSymbol>(bytes, i * sizeof(ElfSymbol), "a symbol");
      if (TextAt(sections[table->link], symbol.name) == name) return i;
    }
    return std::nullopt;
  }

 private:
  std::string_view file_;

 public:
  ElfHeader header;
  std::vector<Section> sections;
};

// visit(attribute, value, payload) for every attribute; value is the u16 of those without a payload.
template <class Visit>
void EachAttribute(std::string_view bytes, Visit&& visit) {
  for (std::size_t at = 0; at + 4 <= bytes.size();) {
    const auto form = static_cast<unsigned char>(bytes[at]);
    const auto attribute = static_cast<unsigned char>(bytes[at + 1]);
    const auto value = ReadAt<std::uint16_t>(bytes, at + 2, "an attribute");
    at += 4;
    const std::size_t payload = form == kFormSized ? value : 0;
    if (payload > bytes.size() - at) Refuse("an attribute lies outside its section");
    visit(attribute, value, bytes.substr(at, payload));
    at += payload;
  }
}

std::uint32_t Word(std::string_view payload, std::size_t index) {
  return ReadAt<std::uint32_t>(payload, index * 4, "an attribute's value");
}

int ArchitectureOf(const ElfHeader& header) {
  constexpr std::size_t kAbiVersion = 8;
  return static_cast<int>(header.ident[kAbiVersion] >= kAbiVersionCuda13 ? header.flags >> 8 & 0xff
                                                                         : header.flags & 0xff);
}

// "... 16 bytes spill stores": the number before `words`.
unsigned NumberBefore(std::string_view line, std::string_view words) {
  const std::size_t end = line.find(words);
  if (end == std::string_view::npos) return 0;
  std::size_t begin = end;
  while (begin > 0 && line[begin - 1] >= '0' && line[begin - 1] <= '9') --begin;
  unsigned number = 0;
  std::from_chars(line.data() + begin, line.data() + end, number);
  return number;
}

}  // namespace

CubinInfo ReadCubin(std::string_view cubin, const std::string& entry) {
  const Elf elf(cubin);
  const Section* code = elf.Find(".text." + entry);
  const std::optional<std::uint32_t> symbol = elf.SymbolIndex(entry);
  if (code == nullptr || !symbol) Refuse("there is no " + entry);
  CubinInfo info;
  info.sm = ArchitectureOf(elf.header);
  info.code_bytes = static_cast<unsigned>(elf.Bytes(*code).size());
  if (const Section* shared = elf.Find(".nv.shared." + entry)) {
    const auto bytes = static_cast<unsigned>(shared->bytes);
    info.shared_bytes = info.sm >= 90 && bytes >= kReservedSharedBytes ? bytes - kReservedSharedBytes : bytes;
  }
  if (const Section* all = elf.Find(".nv.info")) {
    EachAttribute(elf.Bytes(*all), [&](unsigned char attribute, std::uint16_t, std::string_view payload) {
      if (attribute != kRegisterCount && attribute != kFrameSize) return;
      if (Word(payload, 0) != *symbol) return;
      if (attribute == kRegisterCount) info.registers = static_cast<int>(Word(payload, 1));
      if (attribute == kFrameSize) info.stack_bytes = Word(payload, 1);
    });
  }
  if (const Section* own = elf.Find(".nv.info." + entry)) {
    EachAttribute(elf.Bytes(*own), [&](unsigned char attribute, std::uint16_t value, std::string_view payload) {
      if (attribute == kMaxThreads) {
        info.max_threads = static_cast<int>(Word(payload, 0) * Word(payload, 1) * Word(payload, 2));
      }
      if (attribute == kParameterBytes) info.parameter_bytes = value;
      if (attribute == kBarriers) info.barriers = value & 0xff;
    });
  }
  return info;
}

std::optional<Spills> SpillsInLog(std::string_view log) {
  std::optional<Spills> spills;
  for (std::size_t begin = 0; begin < log.size();) {
    const std::size_t end = std::min(log.find('\n', begin), log.size());
    const std::string_view line = log.substr(begin, end - begin);
    begin = end + 1;
    if (line.find(" bytes spill stores") == std::string_view::npos) continue;
    if (!spills) spills.emplace();
    spills->store_bytes += NumberBefore(line, " bytes spill stores");
    spills->load_bytes += NumberBefore(line, " bytes spill loads");
  }
  return spills;
}

}  // namespace regard::cuda
