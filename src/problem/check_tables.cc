// Page numbers, and slots that an append writes, once all lengths are sound.
// Table entries: every entry for a position below the sequence's length is in [0, pages); what lies beyond is not read.
// Appends: the runs of slots that the call writes, numbered through the whole cache, are sorted in the scratch span;
// two that meet are an error, whether through a repeated cache row, a shared page or a page listed twice.
#include <algorithm>
#include <memory>
#include <string>

#include "regard/status.h"
#include "src/problem/checks.h"

namespace regard::checks {
namespace {

std::string Text(std::int64_t v) {
  return std::to_string(v);
}

struct PageList {
  const std::int32_t* entries = nullptr;  // page of positions [n * page_size, (n + 1) * page_size) at n
  std::int64_t used = 0;                  // entries for positions below the sequence's length
};

PageList PagesOf(const Problem& p, const AttentionArgs& a, const Sequence& s) {
  const std::int64_t used = (s.seq_kv + *p.page_size - 1) / *p.page_size;
  if (p.table == TableKind::kCsr) return {Ints(a.kv_indices) + s.kv_row, used};
  return {Ints(a.block_table) + s.kv_row * a.block_table->shape[1], used};
}

// "block_table[3][17]" or "kv_indices[81]": the entry for page number n of the sequence.
std::string EntryName(const Problem& p, const Sequence& s, std::int64_t n) {
  return p.table == TableKind::kCsr ? At("kv_indices", s.kv_row + n) : At("block_table", s.kv_row, n);
}

// Branch-free, so that it vectorizes on any ISA: the top bit gathers e < 0 (that of e) and e > last (that of last - e).
bool AllInRange(const std::int32_t* entries, std::int64_t n, std::int64_t pages) {
  const auto last = static_cast<std::uint32_t>(std::min<std::int64_t>(pages, INT64_C(1) << 31) - 1);
  std::uint32_t bad = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    const auto e = static_cast<std::uint32_t>(entries[i]);
    bad |= e | (last - e);
  }
  return bad >> 31 == 0;
}

void CheckEntries(const Problem& p, const AttentionArgs& a, std::span<const Sequence> sequences) {
  const std::int64_t pages = a.k.shape[0];
  for (std::size_t b = 0; b < sequences.size(); ++b) {
    const PageList list = PagesOf(p, a, sequences[b]);
    if (AllInRange(list.entries, list.used, pages)) continue;
    const std::int32_t* bad =
        std::find_if(list.entries, list.entries + list.used, [&](std::int32_t e) { return e < 0 || e >= pages; });
    throw Error(EntryName(p, sequences[b], bad - list.entries), Text(*bad),
                "0 to " + Text(pages - 1) + ", a page of k, for sequence " + Text(static_cast<std::int64_t>(b)) +
                    " has " + Text(sequences[b].seq_kv) + " keys");
  }
}

// Calls run(slots, position) for each stretch of consecutive slots that the sequence's append writes.
template <class Fn>
void ForEachRun(const Problem& p, const AttentionArgs& a, const Sequence& s, Fn&& run) {
  const std::int64_t end = s.append_begin + s.append_count;
  if (s.append_count <= 0) return;
  if (!p.page_size) {
    const std::int64_t row = p.varlen ? s.kv_row : s.kv_row * a.k.shape[1];
    run(SlotRun{row + s.append_begin, row + end}, s.append_begin);
    return;
  }
  const std::int64_t page_size = *p.page_size;
  const std::int32_t* entries = PagesOf(p, a, s).entries;
  for (std::int64_t position = s.append_begin; position < end;) {
    const std::int64_t n = position / page_size;
    const std::int64_t stop = std::min(end, (n + 1) * page_size);
    const std::int64_t slot = entries[n] * page_size + position % page_size;
    run(SlotRun{slot, slot + stop - position}, position);
    position = stop;
  }
}

// The slow way, for the message: which two positions of which sequences share `slot`.
[[noreturn]] void ThrowSharedSlot(const Problem& p, const AttentionArgs& a, std::span<const Sequence> sequences,
                                  std::int64_t slot) {
  std::int64_t owner[2] = {0, 0}, position[2] = {0, 0};
  int found = 0;
  for (std::size_t b = 0; b < sequences.size() && found < 2; ++b) {
    ForEachRun(p, a, sequences[b], [&](SlotRun r, std::int64_t first) {
      if (found == 2 || slot < r.begin || slot >= r.end) return;
      owner[found] = static_cast<std::int64_t>(b);
      position[found++] = first + slot - r.begin;
    });
  }
  const Sequence& s = sequences[static_cast<std::size_t>(owner[1])];
  const std::string writes = "position " + Text(position[1]) + " of sequence " + Text(owner[1]);
  const std::string other = "which position " + Text(position[0]) + " of sequence " + Text(owner[0]) + " writes";
  if (!p.page_size) {
    throw Error(At("cache_batch_idx", owner[1]), Text(s.kv_row),
                "a row of its own: " + writes + " lands on a slot " + other);
  }
  const std::int64_t n = position[1] / *p.page_size;
  throw Error(EntryName(p, s, n), Text(PagesOf(p, a, s).entries[n]),
              "a page of its own: " + writes + " lands on a slot " + other);
}

void CheckAppendedSlots(const Problem& p, const AttentionArgs& a, std::span<const Sequence> sequences,
                        std::span<std::byte> scratch) {
  void* memory = scratch.data();
  std::size_t bytes = scratch.size();
  auto* runs = static_cast<SlotRun*>(std::align(alignof(SlotRun), sizeof(SlotRun), memory, bytes));
  const std::size_t room = runs ? bytes / sizeof(SlotRun) : 0;
  std::size_t count = 0;
  for (const Sequence& s : sequences) {
    ForEachRun(p, a, s, [&](SlotRun r, std::int64_t) {
      if (count == room) {
        throw Error("scratch", Text(static_cast<std::int64_t>(scratch.size())) + " bytes",
                    "ResolveScratchBytes of the plan's bounds");
      }
      std::construct_at(runs + count++, r);
    });
  }
  const auto by_begin = [](const SlotRun& x, const SlotRun& y) { return x.begin < y.begin; };
  if (!std::is_sorted(runs, runs + count, by_begin)) std::sort(runs, runs + count, by_begin);
  for (std::size_t i = 1; i < count; ++i) {
    if (runs[i].begin < runs[i - 1].end) ThrowSharedSlot(p, a, sequences, runs[i].begin);
  }
}

}  // namespace

void CheckTables(const Problem& p, const AttentionArgs& a, std::span<const Sequence> sequences,
                 std::span<std::byte> scratch) {
  if (p.page_size) CheckEntries(p, a, sequences);
  if (a.k_new) CheckAppendedSlots(p, a, sequences, scratch);
}

}  // namespace regard::checks
