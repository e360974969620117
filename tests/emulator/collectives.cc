// What a warp's lanes do together, once all have arrived. Matrix products: every product is exact in f64, and so is,
// but for the last bits of sums of very unlike terms, their sum, which starts from d, goes over k in order, and is
// rounded once to f32. A chip's own order and width differ, so its bits may too.
#include <bit>
#include <cstring>

#include "tests/emulator/block.h"

namespace regard::emulator {
namespace {

// binary16 to binary32: the exponent is rebased by an exact product.
inline double OfF16(std::uint32_t bits) {
  const float magnitude = std::bit_cast<float>((bits & 0x7fffu) << 13) * 0x1p112f;
  const float value = (bits & 0x7c00u) == 0x7c00u
                          ? std::bit_cast<float>(std::bit_cast<std::uint32_t>(magnitude) | 0x7f800000u)
                          : magnitude;
  return bits & 0x8000u ? -static_cast<double>(value) : static_cast<double>(value);
}
inline double OfBF16(std::uint32_t bits) {
  return std::bit_cast<float>(bits << 16);
}
inline double OfTf32(std::uint32_t bits) {
  return std::bit_cast<float>(bits & 0xffffe000u);
}

template <int k>
struct Tiles {
  double a[16][k], b[k][8], d[16][8];
};

template <int k>
void Multiply(Tiles<k>& t) {
  for (int m = 0; m < 16; ++m) {
    double sums[8];
    std::memcpy(sums, t.d[m], sizeof(sums));
    for (int i = 0; i < k; ++i) {
      const double a = t.a[m][i];
      for (int n = 0; n < 8; ++n) sums[n] += a * t.b[i][n];
    }
    std::memcpy(t.d[m], sums, sizeof(sums));
  }
}

// Fragments of 16-bit types; the layout is that of ptx/mma.h. k8 has the first half of the words.
template <int k, double (*wide)(std::uint32_t)>
void Mma16Bit(MmaLane* const (&lanes)[32]) {
  Tiles<k> t;
  for (int l = 0; l < 32; ++l) {
    const MmaLane& lane = *lanes[l];
    const int g = l / 4, c = 2 * (l % 4);
    for (int half = 0; half < k / 8; ++half) {
      for (int row = 0; row < 2; ++row) {
        const std::uint32_t word = lane.a[2 * half + row];
        t.a[g + 8 * row][c + 8 * half] = wide(word & 0xffffu);
        t.a[g + 8 * row][c + 8 * half + 1] = wide(word >> 16);
      }
      t.b[c + 8 * half][g] = wide(lane.b[half] & 0xffffu);
      t.b[c + 8 * half + 1][g] = wide(lane.b[half] >> 16);
    }
    for (int i = 0; i < 4; ++i) t.d[g + 8 * (i / 2)][c + i % 2] = lane.d[i];
  }
  Multiply(t);
  for (int l = 0; l < 32; ++l) {
    for (int i = 0; i < 4; ++i) lanes[l]->d[i] = static_cast<float>(t.d[l / 4 + 8 * (i / 2)][2 * (l % 4) + i % 2]);
  }
}

void MmaTf32(MmaLane* const (&lanes)[32]) {
  Tiles<8> t;
  for (int l = 0; l < 32; ++l) {
    const MmaLane& lane = *lanes[l];
    const int g = l / 4, c = l % 4;
    for (int i = 0; i < 4; ++i) t.a[g + 8 * (i % 2)][c + 4 * (i / 2)] = OfTf32(lane.a[i]);
    for (int i = 0; i < 2; ++i) t.b[c + 4 * i][g] = OfTf32(lane.b[i]);
    for (int i = 0; i < 4; ++i) t.d[g + 8 * (i / 2)][2 * c + i % 2] = lane.d[i];
  }
  Multiply(t);
  for (int l = 0; l < 32; ++l) {
    for (int i = 0; i < 4; ++i) lanes[l]->d[i] = static_cast<float>(t.d[l / 4 + 8 * (i / 2)][2 * (l % 4) + i % 2]);
  }
}

}  // namespace

void Block::Execute(int w) {
  const auto& arrivals = warps_[static_cast<std::size_t>(w)].arrivals;
  const auto kind = static_cast<Collective>(arrivals[0].kind);
  ++stats_.collectives;
  if (options_.count_banks) banks_.Meet(w);
  switch (kind) {
    case Collective::kWarpBarrier:
      shadow_.WarpSync(w);
      return;
    case Collective::kShuffle:
      for (const Arrival& arrival : arrivals) {
        auto& lane = *static_cast<ShuffleLane*>(arrival.lane);
        lane.result = static_cast<const ShuffleLane*>(arrivals[static_cast<std::size_t>(lane.source & 31)].lane)->value;
      }
      return;
    case Collective::kBallot: {
      std::uint32_t bits = 0;
      for (std::size_t l = 0; l < 32; ++l) {
        bits |= static_cast<std::uint32_t>(static_cast<const BallotLane*>(arrivals[l].lane)->value) << l;
      }
      for (const Arrival& arrival : arrivals) static_cast<BallotLane*>(arrival.lane)->result = bits;
      return;
    }
    case Collective::kMatrix4:
    case Collective::kMatrix4Trans:
    case Collective::kMatrix2Trans:
      LoadMatrices(arrivals.data(), kind);
      return;
    default:
      break;
  }
  MmaLane* lanes[32];
  for (std::size_t l = 0; l < 32; ++l) lanes[l] = static_cast<MmaLane*>(arrivals[l].lane);
  ++stats_.products;
  switch (kind) {
    case Collective::kMmaF16:
      Mma16Bit<16, OfF16>(lanes);
      return;
    case Collective::kMmaBF16:
      Mma16Bit<16, OfBF16>(lanes);
      return;
    case Collective::kMmaF16K8:
      Mma16Bit<8, OfF16>(lanes);
      return;
    default:
      MmaTf32(lanes);
      return;
  }
}

}  // namespace regard::emulator
