// Pages of a generated case: which page of the pool holds which keys, as a block table or as CSR lists. Entries that no
// key needs hold -1 or the largest i32 in turn; pages that no sequence owns keep their poison.
#include <algorithm>
#include <cstdint>
#include <limits>
#include <numeric>

#include "regard/device.h"
#include "src/cases/builder.h"

namespace regard::cases {
namespace {

constexpr std::int64_t kSparePages = 2;
constexpr std::int64_t kPoolPerCache = 8;  // times the last-level cache

std::int64_t PagesFor(std::int64_t keys, std::int64_t page_size) { return (keys + page_size - 1) / page_size; }

}  // namespace

// Ordered: the pages in use and two spare ones. Random: twice the pages in use; where k and v are more than an eighth of
// the last-level cache, at least as many as make the pool 8 caches large (half of max_bytes at most).
std::int64_t Builder::PoolPages(std::int64_t used) const {
  const std::int64_t least = used + kSparePages;
  if (p_.placement == Placement::kOrdered) return least;
  const double page_bytes = static_cast<double>(*p_.page_size) * static_cast<double>(p_.heads_kv) *
                            static_cast<double>((p_.head_dim + p_.head_dim_v)) *
                            static_cast<double>(SizeOf(p_.kv_dtype));
  const auto cache_bytes = static_cast<double>(DeviceCaps::Host().l3_bytes);
  double pages = 2 * static_cast<double>(used);
  if (static_cast<double>(used) * page_bytes > cache_bytes / kPoolPerCache) {
    pages = std::max(pages, kPoolPerCache * cache_bytes / page_bytes + 1);
  }
  pages = std::min({pages, static_cast<double>(max_bytes_ / 2) / page_bytes,
                    static_cast<double>(std::numeric_limits<std::int32_t>::max())});
  return std::max(least, static_cast<std::int64_t>(pages));
}

void Builder::MakePages() {
  const std::int64_t page_size = *p_.page_size;
  std::int64_t used = 0, longest = 0;
  for (const std::int64_t keys : seq_kv_) {
    used += PagesFor(keys, page_size);
    longest = std::max(longest, PagesFor(keys, page_size));
  }
  const std::int64_t pool = PoolPages(used);
  args_.kv_layout = p_.layout;
  const bool nhd = p_.layout == KvLayout::kNHD;
  const std::int64_t d1 = nhd ? page_size : p_.heads_kv, d2 = nhd ? p_.heads_kv : page_size;
  args_.k = NewTensor(p_.kv_dtype, {pool, d1, d2, p_.head_dim});
  args_.v = NewTensor(p_.kv_dtype, {pool, d1, d2, p_.head_dim_v});

  // The first `used` entries of a random permutation of the pool (Fisher-Yates), or 0, 1, 2, ...
  std::vector<std::int64_t> pages(static_cast<std::size_t>(pool));
  std::iota(pages.begin(), pages.end(), std::int64_t{0});
  for (std::int64_t n = 0; n < used && p_.placement == Placement::kRandom; ++n) {
    const std::int64_t other = UniformInt(Key(p_.seed, Stream::kPages, n), n, pool - 1);
    std::swap(pages[static_cast<std::size_t>(n)], pages[static_cast<std::size_t>(other)]);
  }
  pages.resize(static_cast<std::size_t>(used));

  if (p_.table == TableKind::kCsr) {
    std::vector<std::int64_t> indptr = {0}, last;
    for (const std::int64_t keys : seq_kv_) {
      const std::int64_t n = PagesFor(keys, page_size);
      indptr.push_back(indptr.back() + n);
      last.push_back(n > 0 ? keys - (n - 1) * page_size : 0);
    }
    args_.kv_indptr = NewInts(indptr);
    args_.kv_indices = NewInts(pages);
    args_.kv_last_page_len = NewInts(last);
    return;
  }

  const std::int64_t columns = longest + 1;
  const TensorView table = NewTensor(DType::kI32, {CacheRows(), columns});
  auto* entries = static_cast<std::int32_t*>(table.data);
  for (std::int64_t e = 1; e < CacheRows() * columns; e += 2) entries[e] = std::numeric_limits<std::int32_t>::max();
  std::size_t next = 0;
  for (std::int64_t b = 0; b < p_.batch; ++b) {
    const std::int64_t n = PagesFor(seq_kv_[static_cast<std::size_t>(b)], page_size);
    for (std::int64_t c = 0; c < n; ++c) *table.At<std::int32_t>(CacheRow(b), c) = static_cast<std::int32_t>(pages[next++]);
  }
  args_.block_table = table;
}

}  // namespace regard::cases
