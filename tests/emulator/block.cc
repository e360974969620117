// Scheduling: a lane that arrives at a collective hands over to the next lane of its warp, the last one executes it and
// goes on; a warp whose lanes all wait at the block's barrier hands over to the next warp.
#include "tests/emulator/block.h"

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <numeric>
#include <utility>

namespace regard::emulator {

namespace {

struct Failed {};

}  // namespace

constinit thread_local Position position;
constinit thread_local Block* current_block = nullptr;

Block::Block(const LaunchShape& shape, void (*kernel)(const void*), const void* params, const LaunchOptions& options)
    : shape_(shape),
      kernel_(kernel),
      params_(params),
      options_(options),
      random_(options.seed),
      threads_(static_cast<std::size_t>(shape.threads)),
      warps_(static_cast<std::size_t>(shape.threads / 32)),
      order_(warps_.size()),
      shared_(shape.shared_bytes) {
  std::iota(order_.begin(), order_.end(), 0);
}

std::optional<EmulatorReport> Block::Run(int x, int y, int z) {
  for (std::size_t t = 0; t < threads_.size(); ++t) {
    threads_[t].fiber = stacks_.Prepare(t, &ThreadMain);
    threads_[t].groups.clear();
    threads_[t].open.clear();
  }
  std::fill(warps_.begin(), warps_.end(), Warp{});
  warps_at_block_ = warps_done_ = 0;
  any_ = false;
  shadow_.Reset(shape_.shared_bytes, shape_.threads);
  if (options_.count_banks) banks_.Reset(shape_.threads);
  ShuffleOrder();
  position = {};
  position.block[0] = x, position.block[1] = y, position.block[2] = z;
  std::copy_n(shape_.grid, 3, position.grid);
  position.arch = shape_.arch;
  position.thread = order_[0] * 32;

  Block* const outer = std::exchange(current_block, this);
  Switch(host_, threads_[static_cast<std::size_t>(position.thread)].fiber);
  current_block = outer;
  ++stats_.blocks;
  if (options_.count_banks) {
    for (const auto& [site, count] : banks_.counts()) stats_.banks[site].Add(count);
  }
  return std::exchange(report_, std::nullopt);
}

LaunchStats Block::stats() const {
  return stats_;
}

void Block::ThreadMain() {
  Block& block = *current_block;
  try {
    block.kernel_(block.params_);
    block.Exit();
  } catch (const Failed&) {  // the other threads' stacks hold nothing to destroy
  }
  Switch(block.threads_[static_cast<std::size_t>(position.thread)].fiber, block.host_);
  std::abort();  // a finished thread is not resumed
}

void Block::SwitchTo(int thread) {
  Fiber& from = threads_[static_cast<std::size_t>(position.thread)].fiber;
  ++stats_.switches;
  position.thread = thread;
  Switch(from, threads_[static_cast<std::size_t>(thread)].fiber);
}

int Block::NextLane(int warp, int lane) const {
  const std::uint32_t ready = warps_[static_cast<std::size_t>(warp)].ready;
  if (ready == 0) return -1;
  const std::uint32_t after = lane == 31 ? 0 : ready & (kAllLanes << (lane + 1));
  return warp * 32 + std::countr_zero(after ? after : ready);
}

int Block::NextWarp() const {
  for (const int w : order_) {
    const std::uint32_t ready = warps_[static_cast<std::size_t>(w)].ready;
    if (ready) return w * 32 + std::countr_zero(ready);
  }
  return -1;
}

void Block::ShuffleOrder() {
  if (options_.seed == 0) return;
  for (std::size_t n = order_.size(); n > 1; --n) {
    random_ = random_ * 6364136223846793005u + 1442695040888963407u;  // Knuth, MMIX
    std::swap(order_[n - 1], order_[(random_ >> 33) % n]);
  }
}

void Block::Meet(Collective kind, Site site, std::uint32_t uniform, void* lane) {
  const int w = position.thread >> 5, l = position.thread & 31;
  Warp& warp = warps_[static_cast<std::size_t>(w)];
  warp.arrivals[static_cast<std::size_t>(l)] = {static_cast<int>(kind), site, uniform, lane};
  warp.waiting |= 1u << l;
  warp.ready &= ~(1u << l);
  if (const int next = NextLane(w, l); next >= 0) return SwitchTo(next);
  if (warp.waiting != kAllLanes) FailDivergent(w, site);
  CheckSame(w);
  Execute(w);
  warp.waiting = 0;
  warp.ready = kAllLanes;
}

bool Block::MeetBlock(bool any, bool x, Site site) {
  const int w = position.thread >> 5, l = position.thread & 31;
  Warp& warp = warps_[static_cast<std::size_t>(w)];
  bool result = x;
  warp.arrivals[static_cast<std::size_t>(l)] = {any ? kBlockAny : kBlockBarrier, site, 0, &result};
  warp.at_block |= 1u << l;
  warp.ready &= ~(1u << l);
  any_ |= x;
  if (const int next = NextLane(w, l); next >= 0) {
    SwitchTo(next);
    return result;
  }
  if (warp.waiting) FailDivergent(w, site);
  if (warp.at_block != kAllLanes) Fail(Finding::kDeadlock, site, "a block barrier: " + Whereabouts(warp));
  CheckSame(w);
  ++warps_at_block_;
  if (const int next = NextWarp(); next >= 0) {
    SwitchTo(next);
    return result;
  }
  ReleaseBlock();
  if (const int next = NextWarp(); next != position.thread && options_.seed != 0) SwitchTo(next);
  return result;
}

void Block::ReleaseBlock() {
  const Arrival& first = warps_[0].arrivals[0];
  for (const Warp& warp : warps_) {
    if (warp.done) {
      Fail(Finding::kDeadlock, first.site,
           "a block barrier: threads of warp " + std::to_string(&warp - warps_.data()) + " have left the kernel");
    }
    if (warp.arrivals[0].kind != first.kind) {
      Fail(Finding::kDivergence, first.site,
           "BlockBarrier at " + Print(first.site) + " meets BlockAny at " + Print(warp.arrivals[0].site) +
               " (or the other way round)");
    }
  }
  if (first.kind == kBlockAny) {
    for (Warp& warp : warps_) {
      for (Arrival& arrival : warp.arrivals) *static_cast<bool*>(arrival.lane) = any_;
    }
  }
  for (std::size_t w = 0; w < warps_.size(); ++w) {
    if (options_.count_banks) banks_.Meet(static_cast<int>(w));
    warps_[w].at_block = 0;
    warps_[w].ready = kAllLanes;
  }
  any_ = false;
  warps_at_block_ = 0;
  shadow_.BlockSync();
  ShuffleOrder();
}

void Block::Exit() {
  const int w = position.thread >> 5, l = position.thread & 31;
  Warp& warp = warps_[static_cast<std::size_t>(w)];
  warp.done |= 1u << l;
  warp.ready &= ~(1u << l);
  if (const int next = NextLane(w, l); next >= 0) SwitchTo(next);
  if (warp.waiting) FailDivergent(w, warp.arrivals[static_cast<std::size_t>(std::countr_zero(warp.waiting))].site);
  if (warp.at_block) {
    Fail(Finding::kDeadlock, warp.arrivals[static_cast<std::size_t>(std::countr_zero(warp.at_block))].site,
         "a block barrier: " + Whereabouts(warp));
  }
  if (options_.count_banks) banks_.Meet(w);
  ++warps_done_;
  if (const int next = NextWarp(); next >= 0) SwitchTo(next);
  if (warps_at_block_ > 0) ReleaseBlock();  // fails: this warp has left
}

std::string Block::Whereabouts(const Warp& warp) const {
  static constexpr const char* kNames[] = {"WarpBarrier",      "shuffle", "Ballot",  "LoadMatrix4", "LoadMatrix4Trans",
                                           "LoadMatrix2Trans", "MmaF16",  "MmaBF16", "MmaF16K8",    "MmaTf32"};
  std::string text;
  for (int begin = 0, end; begin < 32; begin = end) {
    const auto state = [&](int lane) -> std::string {
      const Arrival& arrival = warp.arrivals[static_cast<std::size_t>(lane)];
      if (warp.done >> lane & 1) return "left the kernel";
      if (warp.at_block >> lane & 1) return "at the block barrier, " + Print(arrival.site);
      if (!(warp.waiting >> lane & 1)) return "running";
      return std::string("at ") + kNames[arrival.kind] + ", " + Print(arrival.site) +
             (arrival.uniform ? ", argument " + std::to_string(arrival.uniform) : "");
    };
    const std::string here = state(begin);
    for (end = begin + 1; end < 32 && state(end) == here;) ++end;
    text += (text.empty() ? "lane" : "; lane") + std::string(end - begin > 1 ? "s " : " ") + std::to_string(begin) +
            (end - begin > 1 ? "-" + std::to_string(end - 1) : "") + " " + here;
  }
  return text;
}

void Block::FailDivergent(int w, Site site) {
  Fail(Finding::kDivergence, site, Whereabouts(warps_[static_cast<std::size_t>(w)]));
}

void Block::CheckSame(int w) {
  const Warp& warp = warps_[static_cast<std::size_t>(w)];
  const Arrival& first = warp.arrivals[0];
  for (const Arrival& arrival : warp.arrivals) {
    if (arrival.kind != first.kind || arrival.uniform != first.uniform || !SameSite(arrival.site, first.site)) {
      FailDivergent(w, first.site);
    }
  }
}

void Block::Fail(Finding finding, Site site, std::string what) {
  report_.emplace();
  report_->finding = finding;
  report_->kernel = shape_.kernel;
  std::copy_n(position.block, 3, report_->block);
  report_->thread = position.thread;
  report_->site = site;
  report_->what = std::move(what);
  throw Failed();
}

}  // namespace regard::emulator
