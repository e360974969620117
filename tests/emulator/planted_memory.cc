// Bugs of one thread: where it reads and writes.
#include "ptx/ldmatrix.h"
#include "ptx/memory.h"
#include "ptx/thread.h"
#include "tests/emulator/planted.h"

namespace regard::emulator {
namespace {

using namespace cuda;
using Params = PlantedParams;

void ReadsPastTheEnd(const Params& p) {
  Global<float>(p.out).Store(Lane(), Global<const float>(p.in).Load(Lane() + 33));
}
void ReadsToTheEnd(const Params& p) {
  Global<float>(p.out).Store(Lane(), Global<const float>(p.in).Load(Lane() + 32));
}

void WritesBeforeTheBegin(const Params& p) {
  Global<float>(p.out).Store(Lane() - 1, 1);
}
void WritesFromTheBegin(const Params& p) {
  Global<float>(p.out).Store(Lane(), 1);
}

// 16 bytes that begin inside and end outside.
void StraddlesTheEnd(const Params& p) {
  Global<float>(p.out).Store16(Lane() / 8 * 4, Global<const float>(p.in).Load16(61));
}
void EndsAtTheEnd(const Params& p) {
  Global<float>(p.out).Store16(Lane() / 8 * 4, Global<const float>(p.in).Load16(60));
}

void ReadsNull(const Params& p) {
  Global<float>(p.out).Store(0, Global<const float>(nullptr).Load(Lane()));
}
void AsksWhetherPresent(const Params& p) {
  const Global<const float> absent(nullptr);
  Global<float>(p.out).Store(0, absent.Present() ? absent.Load(0) : 0);
}

void ReadsReleased(const Params& p) {
  Global<float>(p.out).Store(0, Global<const float>(p.released).Load(0));
}
void ReadsLive(const Params& p) {
  Global<float>(p.out).Store(0, Global<const float>(p.in).Load(0));
}

void Reads16AtFour(const Params& p) {
  Global<float>(p.out).Store16(0, Global<const float>(p.in).Load16(1));
}
void Reads16AtSixteen(const Params& p) {
  Global<float>(p.out).Store16(0, Global<const float>(p.in).Load16(4));
}

void SharedPastTheEnd(const Params&) {
  Shared<float>(kPlantedShared - 124).Store(Lane(), 1);
}
void SharedToTheEnd(const Params&) {
  Shared<float>(kPlantedShared - 128).Store(Lane(), 1);
}

void SharedBeforeTheBegin(const Params&) {
  Shared<float>(0).Store(Lane() - 1, 1);
}
void SharedFromTheBegin(const Params&) {
  Shared<float>(4).Store(Lane() - 1, 1);
}

void SharedMisaligned(const Params&) {
  Shared<float>(2).Store(Lane(), 1);
}
void SharedAligned(const Params&) {
  Shared<float>(4).Store(Lane(), 1);
}

void MatrixRowsAtEightBytes(const Params&) {
  u32 r[4];
  LoadMatrix4(r, Shared<u16>(8), Lane() * 8);
}
void MatrixRowsAtSixteenBytes(const Params&) {
  for (int i = 0; i < 8; ++i) Shared<u16>(16).Store(Lane() * 8 + i, 0);
  u32 r[4];
  LoadMatrix4(r, Shared<u16>(16), Lane() * 8);
}

void ReadsUnwrittenShared(const Params& p) {
  const Shared<float> cell(0);
  if (Lane() < 31) cell.Store(Lane(), 1);
  Global<float>(p.out).Store(Lane(), cell.Load(Lane()));
}
void ReadsWrittenShared(const Params& p) {
  const Shared<float> cell(0);
  cell.Store(Lane(), 1);
  Global<float>(p.out).Store(Lane(), cell.Load(Lane()));
}

// One byte of a word was never written.
void ReadsThreeWrittenBytes(const Params& p) {
  for (int i = 0; i < 3; ++i) Shared<u8>(0).Store(Lane() * 4 + i, 1);
  Global<u32>(reinterpret_cast<u32*>(p.out)).Store(Lane(), Shared<u32>(0).Load(Lane()));
}
void ReadsFourWrittenBytes(const Params& p) {
  for (int i = 0; i < 4; ++i) Shared<u8>(0).Store(Lane() * 4 + i, 1);
  Global<u32>(reinterpret_cast<u32*>(p.out)).Store(Lane(), Shared<u32>(0).Load(Lane()));
}

constexpr Planted kPlanted[] = {
    {"a read past the end of an allocation", ReadsPastTheEnd, ReadsToTheEnd, Finding::kGlobalBounds,
     "4 bytes at byte 256 of allocation 'in' of 256 bytes"},
    {"a write before the begin of an allocation", WritesBeforeTheBegin, WritesFromTheBegin, Finding::kGlobalBounds,
     "4 bytes at byte -4 of allocation 'out' of 256 bytes"},
    {"sixteen bytes across the end", StraddlesTheEnd, EndsAtTheEnd, Finding::kGlobalBounds,
     "16 bytes at byte 244 of allocation 'in' of 256 bytes"},
    {"a read through null", ReadsNull, AsksWhetherPresent, Finding::kGlobalBounds, "4 bytes at a null pointer"},
    {"a read of released memory", ReadsReleased, ReadsLive, Finding::kFreedMemory,
     "byte 0 of released allocation 'released'"},
    {"sixteen bytes at a multiple of four", Reads16AtFour, Reads16AtSixteen, Finding::kMisaligned,
     "16 bytes at byte 4"},
    {"a write past the block's shared memory", SharedPastTheEnd, SharedToTheEnd, Finding::kSharedBounds,
     "4 bytes at byte 1024 of the block's 1024"},
    {"a write before the block's shared memory", SharedBeforeTheBegin, SharedFromTheBegin, Finding::kSharedBounds,
     "4 bytes at byte -4 of the block's 1024"},
    {"a misaligned write to shared memory", SharedMisaligned, SharedAligned, Finding::kMisaligned, "4 bytes at byte 2"},
    {"ldmatrix rows at multiples of eight bytes", MatrixRowsAtEightBytes, MatrixRowsAtSixteenBytes,
     Finding::kMisaligned, "16 bytes at byte 8 of shared memory"},
    {"a read of shared memory that nobody wrote", ReadsUnwrittenShared, ReadsWrittenShared,
     Finding::kUninitialisedShared, "byte 124 of shared memory was never written"},
    {"a read of a word that is written but for a byte", ReadsThreeWrittenBytes, ReadsFourWrittenBytes,
     Finding::kUninitialisedShared, "byte 3 of shared memory was never written"},
};

}  // namespace

std::span<const Planted> PlantedInMemory() {
  return kPlanted;
}

}  // namespace regard::emulator
