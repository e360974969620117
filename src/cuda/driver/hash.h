// FNV-1a, 64 and 128 bits: http://www.isthe.com/chongo/tech/comp/fnv. No defence against an adversary; where two texts
// with one hash would do harm, the text itself is compared as well.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace regard::cuda {

inline std::uint64_t Fnv64(std::string_view text, std::uint64_t hash = 0xcbf29ce484222325u) {
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  return hash;
}

// 32 hexadecimal digits.
inline std::string Fnv128Hex(std::string_view text) {
  unsigned __int128 hash = (static_cast<unsigned __int128>(0x6c62272e07bb0142u) << 64) | 0x62b821756295c58du;
  constexpr unsigned __int128 kPrime = (static_cast<unsigned __int128>(1) << 88) | 0x13b;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * kPrime;
  std::string hex(32, '0');
  for (std::size_t i = 32; i-- > 0; hash >>= 4) hex[i] = "0123456789abcdef"[static_cast<unsigned>(hash & 15)];
  return hex;
}

}  // namespace regard::cuda
