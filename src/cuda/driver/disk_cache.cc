#include "src/cuda/driver/disk_cache.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <system_error>
#include <thread>
#include <vector>

#include "src/core/env.h"
#include "src/cuda/driver/hash.h"

namespace regard::cuda {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kDefaultLimitBytes = std::int64_t{1} << 30;
constexpr std::string_view kSuffix = ".cubin";
constexpr std::string_view kTemporarySuffix = ".tmp";
constexpr const char* kTurnsFile = "/turns.lock";       // processes lock the byte of their key's hash
constexpr off_t kTurns = 1 << 20;
constexpr auto kTurnPoll = std::chrono::milliseconds(20);
constexpr auto kStaleTemporary = std::chrono::hours(1);  // its writer is gone

struct Header {
  std::array<char, 8> magic{'r', 'e', 'g', 'a', 'r', 'd', 'c', 'u'};
  std::uint32_t format = 1;
  std::uint32_t key_bytes = 0;
  std::uint64_t cubin_bytes = 0;
  std::uint64_t checksum = 0;
};
static_assert(sizeof(Header) == 8 + 4 + 4 + 8 + 8);

// Closes on scope exit.
class Descriptor {
 public:
  explicit Descriptor(int number) : number_(number) {}
  ~Descriptor() {
    if (number_ >= 0) close(number_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return number_; }
  bool Close() {
    const int number = number_;
    number_ = -1;
    return close(number) == 0;
  }

 private:
  int number_;
};

bool ReadAll(int file, std::string* bytes) {
  for (std::size_t done = 0; done < bytes->size();) {
    const ssize_t got = read(file, bytes->data() + done, bytes->size() - done);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return false;
    done += static_cast<std::size_t>(got);
  }
  return true;
}

bool WriteAll(int file, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t wrote = write(file, bytes.data(), bytes.size());
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote <= 0) return false;
    bytes.remove_prefix(static_cast<std::size_t>(wrote));
  }
  return true;
}

enum class EntryState { kWhole, kBroken, kOfAnotherKey };

// Cuts an entry down to its cubin.
EntryState TakeCubin(std::string_view key, std::string* bytes) {
  Header header;
  const Header expected;
  if (bytes->size() < sizeof(header)) return EntryState::kBroken;
  std::memcpy(&header, bytes->data(), sizeof(header));
  const std::uint64_t rest = bytes->size() - sizeof(header);
  if (header.magic != expected.magic || header.format != expected.format || header.key_bytes > rest ||
      header.cubin_bytes != rest - header.key_bytes) {
    return EntryState::kBroken;
  }
  const std::string_view body = std::string_view(*bytes).substr(sizeof(header));
  if (Fnv64(body) != header.checksum) return EntryState::kBroken;
  if (body.substr(0, header.key_bytes) != key) return EntryState::kOfAnotherKey;
  bytes->erase(0, sizeof(header) + header.key_bytes);
  return EntryState::kWhole;
}

struct Entry {
  fs::path path;
  fs::file_time_type used;
  std::int64_t bytes = 0;
};

// Files of the folder with this suffix; entries that vanish meanwhile are left out.
std::vector<Entry> EntriesOf(const std::string& folder, std::string_view suffix) {
  std::vector<Entry> entries;
  std::error_code error;
  for (fs::directory_iterator at(folder, error), end; !error && at != end; at.increment(error)) {
    if (!at->path().filename().string().ends_with(suffix)) continue;
    std::error_code gone;
    Entry entry{at->path(), at->last_write_time(gone), 0};
    if (!gone) entry.bytes = static_cast<std::int64_t>(at->file_size(gone));
    if (!gone) entries.push_back(std::move(entry));
  }
  return entries;
}

bool Remove(const fs::path& path) {
  std::error_code error;
  return fs::remove(path, error);
}

// Created for this user alone, as caches are (0700); what exists keeps its mode.
bool MakeFolder(const fs::path& folder) {
  std::error_code error;
  if (fs::is_directory(folder, error)) return true;
  if (folder.has_parent_path() && folder.parent_path() != folder && !MakeFolder(folder.parent_path())) return false;
  return mkdir(folder.c_str(), 0700) == 0 || (errno == EEXIST && fs::is_directory(folder, error));
}

std::string DefaultFolder() {
  if (!Env().cuda_cache.empty()) return Env().cuda_cache;
  if (const char* cache = std::getenv("XDG_CACHE_HOME"); cache != nullptr && cache[0] == '/') {
    return std::string(cache) + "/regard/cuda";
  }
  if (const char* home = std::getenv("HOME"); home != nullptr && home[0] == '/') {
    return std::string(home) + "/.cache/regard/cuda";
  }
  return {};
}

}  // namespace

std::string CacheKey::File() const { return Fnv128Hex(text) + std::string(kSuffix); }

DiskCache& DiskCache::OfProcess() {
  // Never destroyed: threads may still plan while the process ends.
  static auto& cache = *new DiskCache(DefaultFolder(), Env().cuda_cache_bytes.value_or(kDefaultLimitBytes));
  return cache;
}

std::optional<std::string> DiskCache::Find(const CacheKey& key) {
  if (folder_.empty()) return std::nullopt;
  const std::string path = folder_ + "/" + key.File();
  const Descriptor file(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (file.get() < 0) {
    if (errno != ENOENT && errno != ENOTDIR) Complain("cannot be read (" + std::string(std::strerror(errno)) + ")");
    return std::nullopt;
  }
  struct stat status {};
  if (fstat(file.get(), &status) != 0 || !S_ISREG(status.st_mode)) return std::nullopt;
  std::string bytes(static_cast<std::size_t>(status.st_size), '\0');
  const EntryState state = ReadAll(file.get(), &bytes) ? TakeCubin(key.text, &bytes) : EntryState::kBroken;
  if (state == EntryState::kBroken) Remove(path);
  if (state != EntryState::kWhole) return std::nullopt;
  futimens(file.get(), nullptr);  // the time of the last use; where it cannot be set, of the last store
  return bytes;
}

bool DiskCache::Store(const CacheKey& key, std::string_view cubin) {
  if (folder_.empty()) return false;
  Header header;
  header.key_bytes = static_cast<std::uint32_t>(key.text.size());
  header.cubin_bytes = cubin.size();
  header.checksum = Fnv64(cubin, Fnv64(key.text));
  if (static_cast<std::int64_t>(sizeof(header) + key.text.size() + cubin.size()) > limit_bytes_) return false;
  if (!MakeFolder(folder_)) {
    Complain("cannot be made (" + std::string(std::strerror(errno)) + ")");
    return false;
  }
  static std::atomic<unsigned> count{0};
  const std::string path = folder_ + "/" + key.File();
  const std::string temporary =
      path + "." + std::to_string(getpid()) + "." + std::to_string(count++) + std::string(kTemporarySuffix);
  Descriptor file(open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  const std::string_view head(reinterpret_cast<const char*>(&header), sizeof(header));
  const bool stored = file.get() >= 0 && WriteAll(file.get(), head) && WriteAll(file.get(), key.text) &&
                      WriteAll(file.get(), cubin) && file.Close() && std::rename(temporary.c_str(), path.c_str()) == 0;
  if (!stored) {
    Complain("cannot be written (" + std::string(std::strerror(errno)) + ")");
    Remove(temporary);
    return false;
  }
  Trim(path);
  return true;
}

DiskCache::Turn::~Turn() {
  if (file_ >= 0) close(file_);
}

DiskCache::Turn DiskCache::TakeTurn(const CacheKey& key, std::chrono::milliseconds patience) {
  if (folder_.empty() || limit_bytes_ == 0 || !MakeFolder(folder_)) return {};
  const int file = open((folder_ + kTurnsFile).c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (file < 0) return {};
  Turn turn(file);
  struct flock lock {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  lock.l_start = static_cast<off_t>(Fnv64(key.text) % kTurns);
  lock.l_len = 1;
  const std::string entry = folder_ + "/" + key.File();
  const auto end = std::chrono::steady_clock::now() + patience;
  while (fcntl(file, F_OFD_SETLK, &lock) != 0) {
    const bool held = errno == EAGAIN || errno == EACCES;  // else the file system knows no locks
    if (!held || access(entry.c_str(), F_OK) == 0 || std::chrono::steady_clock::now() >= end) break;
    std::this_thread::sleep_for(kTurnPoll);
  }
  return turn;
}

// Brings the sum of all entries under the limit; `keep` was stored just now and stays.
void DiskCache::Trim(const std::string& keep) {
  const auto now = fs::file_time_type::clock::now();
  for (const Entry& entry : EntriesOf(folder_, kTemporarySuffix)) {
    if (now - entry.used > kStaleTemporary) Remove(entry.path);
  }
  std::vector<Entry> entries = EntriesOf(folder_, kSuffix);
  std::int64_t bytes = 0;
  for (const Entry& entry : entries) bytes += entry.bytes;
  if (bytes <= limit_bytes_) return;
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) { return a.used < b.used; });
  for (const Entry& entry : entries) {
    if (bytes <= limit_bytes_) break;
    if (entry.path == keep) continue;
    Remove(entry.path);
    bytes -= entry.bytes;
  }
}

DiskCache::Usage DiskCache::Measure() const {
  Usage usage;
  if (folder_.empty()) return usage;
  for (const Entry& entry : EntriesOf(folder_, kSuffix)) {
    ++usage.entries;
    usage.bytes += entry.bytes;
  }
  return usage;
}

DiskCache::Usage DiskCache::Clear() {
  Usage removed;
  if (folder_.empty()) return removed;
  for (const Entry& entry : EntriesOf(folder_, kTemporarySuffix)) Remove(entry.path);
  Remove(folder_ + kTurnsFile);
  for (const Entry& entry : EntriesOf(folder_, kSuffix)) {
    if (!Remove(entry.path)) continue;
    ++removed.entries;
    removed.bytes += entry.bytes;
  }
  return removed;
}

void DiskCache::Complain(const std::string& what) {
  if (complained_.exchange(true)) return;
  std::fprintf(stderr,
               "regard: the CUDA cache %s %s; CUDA kernels are compiled anew in every process "
               "(set REGARD_CUDA_CACHE to a folder that can be written)\n",
               folder_.c_str(), what.c_str());
}

}  // namespace regard::cuda
