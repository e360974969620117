// Compiled kernels on disk, one file each. An entry says in full what it was made of (its key), so that a changed
// source, option, architecture or compiler never meets old code; a checksum guards the bytes. Entries appear by rename,
// so any number of processes may read, write and clear one folder at once. A folder that cannot be read or written is a
// cache that never hits: the first trouble is said once on stderr. Nothing here throws.
//
// Entry: magic "regardcu", u32 format, u32 key bytes, u64 cubin bytes, u64 FNV-1a of key and cubin, key, cubin.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace regard::cuda {

struct CacheKey {
  std::string text;           // everything that the cubin depends on
  std::string File() const;   // name of the entry's file
};

class DiskCache {
 public:
  // "" for no cache at all. `limit_bytes` bounds the sum of all entries; the ones that were used longest ago go first.
  DiskCache(std::string folder, std::int64_t limit_bytes) : folder_(std::move(folder)), limit_bytes_(limit_bytes) {}

  // REGARD_CUDA_CACHE, else $XDG_CACHE_HOME/regard/cuda, else ~/.cache/regard/cuda; REGARD_CUDA_CACHE_BYTES.
  static DiskCache& OfProcess();

  // The cubin of a key, if an entry of exactly this key is whole. Finding it counts as a use; a broken entry is
  // removed.
  std::optional<std::string> Find(const CacheKey& key);
  // False where it could not be stored.
  bool Store(const CacheKey& key, std::string_view cubin);

  // The right to make an entry, which one process has at a time while it holds this; it ends with the holder's process at
  // the latest. Advice only: who does not get it may go ahead all the same.
  class Turn {
   public:
    Turn() = default;
    explicit Turn(int file) : file_(file) {}
    ~Turn();
    Turn(Turn&& other) noexcept : file_(std::exchange(other.file_, -1)) {}
    Turn& operator=(Turn&&) = delete;

   private:
    int file_ = -1;  // a lock of its own open file
  };
  // Waits while another process makes the entry, at most `patience`; stops waiting when the entry is there. Without a
  // folder that can be written it does not wait.
  Turn TakeTurn(const CacheKey& key, std::chrono::milliseconds patience);

  struct Usage {
    std::int64_t entries = 0;
    std::int64_t bytes = 0;
  };
  Usage Measure() const;
  Usage Clear();  // what was removed
  const std::string& folder() const noexcept { return folder_; }
  std::int64_t limit_bytes() const noexcept { return limit_bytes_; }

 private:
  void Trim(const std::string& keep);
  void Complain(const std::string& what);

  std::string folder_;
  std::int64_t limit_bytes_;
  std::atomic<bool> complained_{false};
};

}  // namespace regard::cuda
