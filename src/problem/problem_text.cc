// The text form of a Problem: one row of kWords a word. docs/problem.md lists the words and their defaults.
// Invariant: ParseProblem(Print(p)) == p for every p that ParseProblem returns, and for every p that Validate accepts.
#include <algorithm>
#include <array>
#include <iterator>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "src/core/suggest.h"
#include "src/problem/lengths.h"
#include "src/problem/text_values.h"

namespace regard {
namespace {

constexpr std::int64_t kDefaultLength = 1024;
constexpr double kDefaultMaskDensity = 0.1;

// Names in the order of the enumerators.
constexpr std::string_view kPhases[] = {"prefill", "decode", "mixed", "backward"};
constexpr std::string_view kLayouts[] = {"NHD", "HND"};
constexpr std::string_view kTables[] = {"block", "csr"};
constexpr std::string_view kOrders[] = {"bshd", "bhsd"};
constexpr std::string_view kPlacements[] = {"ordered", "random"};
constexpr std::string_view kRotaries[] = {"none", "interleaved", "half"};
constexpr std::string_view kInvariances[] = {"full", "batch", "none"};

using Text = std::string_view;
using Value = std::optional<std::string>;  // absent: the word is left out; "": the word alone

enum class Takes { kNothing, kValue, kMaybeValue };

struct Word {
  Text name;
  Takes takes;
  Text example;  // of the value, for messages
  void (*read)(Problem& p, Text name, Text value);
  Value (*write)(const Problem& p);
};

template <std::int64_t Problem::*kField>
void ReadCount(Problem& p, Text name, Text value) {
  p.*kField = ReadInt(name, value);
}
template <std::int64_t Problem::*kField>
Value WriteCount(const Problem& p) {
  return std::to_string(p.*kField);
}

template <bool Problem::*kField>
void ReadFlag(Problem& p, Text, Text) {
  p.*kField = true;
}
template <bool Problem::*kField>
Value WriteFlag(const Problem& p) {
  return p.*kField ? Value("") : std::nullopt;
}

template <std::optional<std::int64_t> Problem::*kField>
void ReadMaybeCount(Problem& p, Text name, Text value) {
  p.*kField = ReadInt(name, value);
}
template <std::optional<std::int64_t> Problem::*kField>
Value WriteMaybeCount(const Problem& p) {
  return p.*kField ? Value(std::to_string(*(p.*kField))) : std::nullopt;
}

template <LengthSpec Problem::*kField>
void ReadList(Problem& p, Text name, Text value) {
  p.*kField = ReadLengths(name, value);
}
template <LengthSpec Problem::*kField>
Value WriteList(const Problem& p) {
  return (p.*kField).empty() ? std::nullopt : Value(WriteLengths(p.*kField));
}

template <class Enum>
Enum ReadEnum(Text name, Text value, std::span<const Text> names) {
  return static_cast<Enum>(ReadName(name, value, names));
}
// Absent for the first enumerator, which is every enum's default.
template <class Enum>
Value WriteEnum(Enum value, std::span<const Text> names) {
  if (value == Enum{}) return std::nullopt;
  return WriteName(static_cast<std::size_t>(value), names);
}

Value WriteUnless(double fallback, double value) {
  return value == fallback ? std::nullopt : Value(WriteDouble(value));
}

std::optional<std::int64_t> ReadSide(Text name, Text value, Text side) {
  if (side.empty()) return std::nullopt;
  const std::int64_t n = ReadInt(name, side);
  if (n < 0) {
    throw Error(std::string(name), Shown(value), "sides of at least 0; an empty side is open, as in window=1023,");
  }
  return n;
}

void ReadWindow(Problem& p, Text name, Text value) {
  const std::size_t comma = value.find(',');
  if (comma == value.npos) {
    throw Error(std::string(name), Shown(value), "L,R (either side empty: open), for example window=1023,0");
  }
  p.options.window_left = ReadSide(name, value, value.substr(0, comma));
  p.options.window_right = ReadSide(name, value, value.substr(comma + 1));
}

Value WriteWindow(const Problem& p) {
  const std::optional<std::int64_t> left = p.options.window_left, right = p.options.window_right;
  if (!left && !right) return std::nullopt;
  return (left ? std::to_string(*left) : "") + "," + (right ? std::to_string(*right) : "");
}

void ReadMask(Problem& p, Text name, Text value) {
  p.mask = true;
  p.mask_density = value.empty() ? kDefaultMaskDensity : ReadDouble(name, value);
}

Value WriteMask(const Problem& p) {
  if (!p.mask) return std::nullopt;
  return p.mask_density == kDefaultMaskDensity ? "" : WriteDouble(p.mask_density);
}

// In the order in which Print writes them. The phase, which stands alone, comes before all.
constexpr Word kWords[] = {
    {"b", Takes::kValue, "4", ReadCount<&Problem::batch>, WriteCount<&Problem::batch>},
    {"sq", Takes::kValue, "1024", ReadCount<&Problem::seq_q>, WriteCount<&Problem::seq_q>},
    {"skv", Takes::kValue, "4096", ReadCount<&Problem::seq_kv>, WriteCount<&Problem::seq_kv>},
    {"hq", Takes::kValue, "32", ReadCount<&Problem::heads_q>, WriteCount<&Problem::heads_q>},
    {"hkv", Takes::kValue, "8", ReadCount<&Problem::heads_kv>, WriteCount<&Problem::heads_kv>},
    {"d", Takes::kValue, "128", ReadCount<&Problem::head_dim>, WriteCount<&Problem::head_dim>},
    {"dv", Takes::kValue, "128", ReadCount<&Problem::head_dim_v>,
     [](const Problem& p) { return p.head_dim_v == p.head_dim ? std::nullopt : Value(std::to_string(p.head_dim_v)); }},
    {"dtype", Takes::kValue, "bf16", [](Problem& p, Text name, Text value) { p.dtype = ReadDType(name, value); },
     [](const Problem& p) { return Value(Name(p.dtype)); }},
    {"kv", Takes::kValue, "f8e4m3", [](Problem& p, Text name, Text value) { p.kv_dtype = ReadDType(name, value); },
     [](const Problem& p) { return p.kv_dtype == p.dtype ? std::nullopt : Value(Name(p.kv_dtype)); }},
    {"out", Takes::kValue, "f32", [](Problem& p, Text name, Text value) { p.out_dtype = ReadDType(name, value); },
     [](const Problem& p) { return p.out_dtype ? Value(Name(*p.out_dtype)) : std::nullopt; }},
    {"page", Takes::kValue, "16", ReadMaybeCount<&Problem::page_size>, WriteMaybeCount<&Problem::page_size>},
    {"layout", Takes::kValue, "HND",
     [](Problem& p, Text name, Text value) { p.layout = ReadEnum<KvLayout>(name, value, kLayouts); },
     [](const Problem& p) { return WriteEnum(p.layout, kLayouts); }},
    {"table", Takes::kValue, "csr",
     [](Problem& p, Text name, Text value) { p.table = ReadEnum<TableKind>(name, value, kTables); },
     [](const Problem& p) { return WriteEnum(p.table, kTables); }},
    {"order", Takes::kValue, "bhsd",
     [](Problem& p, Text name, Text value) { p.order = ReadEnum<DenseOrder>(name, value, kOrders); },
     [](const Problem& p) { return WriteEnum(p.order, kOrders); }},
    {"placement", Takes::kValue, "random",
     [](Problem& p, Text name, Text value) { p.placement = ReadEnum<Placement>(name, value, kPlacements); },
     [](const Problem& p) { return WriteEnum(p.placement, kPlacements); }},
    {"varlen", Takes::kNothing, "", ReadFlag<&Problem::varlen>, WriteFlag<&Problem::varlen>},
    {"lens", Takes::kValue, "1024*2,4096*30", ReadList<&Problem::lens>, WriteList<&Problem::lens>},
    {"qlens", Takes::kValue, "1024*2,1*30", ReadList<&Problem::qlens>, WriteList<&Problem::qlens>},
    {"seed", Takes::kValue, "7", [](Problem& p, Text name, Text value) { p.seed = ReadUint(name, value); },
     [](const Problem& p) { return p.seed == 1 ? std::nullopt : Value(std::to_string(p.seed)); }},
    {"qscale", Takes::kValue, "4", [](Problem& p, Text name, Text value) { p.qscale = ReadDouble(name, value); },
     [](const Problem& p) { return WriteUnless(1, p.qscale); }},
    {"causal", Takes::kNothing, "", [](Problem& p, Text, Text) { p.options.causal = true; },
     [](const Problem& p) { return p.options.causal ? Value("") : std::nullopt; }},
    {"window", Takes::kValue, "1023,0", ReadWindow, WriteWindow},
    {"chunk", Takes::kValue, "8192", [](Problem& p, Text name, Text value) { p.options.chunk = ReadInt(name, value); },
     [](const Problem& p) { return p.options.chunk ? Value(std::to_string(*p.options.chunk)) : std::nullopt; }},
    {"softcap", Takes::kValue, "30",
     [](Problem& p, Text name, Text value) { p.options.softcap = ReadDouble(name, value); },
     [](const Problem& p) { return WriteUnless(0, p.options.softcap); }},
    {"scale", Takes::kValue, "0.125",
     [](Problem& p, Text name, Text value) { p.options.scale = ReadDouble(name, value); },
     [](const Problem& p) { return p.options.scale ? Value(WriteDouble(*p.options.scale)) : std::nullopt; }},
    {"alibi", Takes::kNothing, "", ReadFlag<&Problem::alibi>, WriteFlag<&Problem::alibi>},
    {"bias", Takes::kNothing, "", ReadFlag<&Problem::bias>, WriteFlag<&Problem::bias>},
    {"mask", Takes::kMaybeValue, "0.1", ReadMask, WriteMask},
    {"sink", Takes::kNothing, "", ReadFlag<&Problem::sink>, WriteFlag<&Problem::sink>},
    {"leftpad", Takes::kNothing, "", ReadFlag<&Problem::leftpad>, WriteFlag<&Problem::leftpad>},
    {"qv", Takes::kNothing, "", ReadFlag<&Problem::qv>, WriteFlag<&Problem::qv>},
    {"qoffset", Takes::kNothing, "", ReadFlag<&Problem::q_offset>, WriteFlag<&Problem::q_offset>},
    {"dropout", Takes::kValue, "0.1",
     [](Problem& p, Text name, Text value) { p.options.dropout = ReadDouble(name, value); },
     [](const Problem& p) { return WriteUnless(0, p.options.dropout); }},
    {"append", Takes::kValue, "1", ReadMaybeCount<&Problem::append>, WriteMaybeCount<&Problem::append>},
    {"rotary", Takes::kValue, "interleaved",
     [](Problem& p, Text name, Text value) { p.options.rotary = ReadEnum<Rotary>(name, value, kRotaries); },
     [](const Problem& p) { return WriteEnum(p.options.rotary, kRotaries); }},
    {"lse", Takes::kNothing, "", ReadFlag<&Problem::lse>, WriteFlag<&Problem::lse>},
    {"grad", Takes::kValue, "f32", [](Problem& p, Text name, Text value) { p.grad_dtype = ReadDType(name, value); },
     [](const Problem& p) { return p.grad_dtype ? Value(Name(*p.grad_dtype)) : std::nullopt; }},
    {"dlse", Takes::kNothing, "", ReadFlag<&Problem::dlse>, WriteFlag<&Problem::dlse>},
    {"dbias", Takes::kNothing, "", ReadFlag<&Problem::dbias>, WriteFlag<&Problem::dbias>},
    {"dsink", Takes::kNothing, "", ReadFlag<&Problem::dsink>, WriteFlag<&Problem::dsink>},
    {"invariance", Takes::kValue, "batch",
     [](Problem& p, Text name, Text value) { p.options.invariance = ReadEnum<Invariance>(name, value, kInvariances); },
     [](const Problem& p) { return WriteEnum(p.options.invariance, kInvariances); }},
    {"scoremod", Takes::kNothing, "", ReadFlag<&Problem::score_mod>, WriteFlag<&Problem::score_mod>},
    {"maskmod", Takes::kNothing, "", ReadFlag<&Problem::mask_mod>, WriteFlag<&Problem::mask_mod>},
};

// Which words a text has given.
struct Given {
  bool phase = false;
  std::array<bool, std::size(kWords)> words{};

  bool operator[](Text name) const {
    const auto* word = std::ranges::find(kWords, name, &Word::name);
    return words[static_cast<std::size_t>(word - kWords)];
  }
};

[[noreturn]] void ThrowUnknown(Text name) {
  std::vector<Text> known(std::begin(kPhases), std::end(kPhases));
  for (const Word& word : kWords) known.push_back(word.name);
  std::string expected = "a known word";
  const std::string nearest = Nearest(name, known);
  if (!nearest.empty()) expected += ", the nearest is " + nearest;
  expected += " (all:";
  for (const Text word : known) expected += " " + std::string(word);
  throw Error("case", Shown(name), expected + ")");
}

void ReadWord(Text text, Problem& p, Given& given) {
  const std::size_t equals = text.find('=');
  const bool has_value = equals != text.npos;
  const Text name = text.substr(0, equals);
  const Text value = has_value ? text.substr(equals + 1) : Text();

  const auto* phase = std::ranges::find(kPhases, text);
  if (phase != std::end(kPhases)) {
    if (given.phase) throw Error("case", Shown(text), "one phase; an earlier word names one too");
    given.phase = true;
    p.phase = static_cast<Phase>(phase - kPhases);
    return;
  }
  const auto* word = std::ranges::find(kWords, name, &Word::name);
  if (word == std::end(kWords)) ThrowUnknown(name);
  bool& seen = given.words[static_cast<std::size_t>(word - kWords)];
  if (seen) throw Error("case", Shown(text), "each word once; " + std::string(name) + " is given twice");
  seen = true;
  if (has_value && word->takes == Takes::kNothing) {
    throw Error(std::string(name), Shown(text), "the word alone, without a value");
  }
  if (value.empty() && (has_value || word->takes == Takes::kValue)) {
    const std::string example = std::string(name) + "=" + std::string(word->example);
    throw Error(std::string(name), "no value", "a value, for example " + example);
  }
  word->read(p, name, value);
}

// Gives the words that were left out the defaults of docs/problem.md.
void SettleDefaults(const Given& given, Problem& p) {
  if (!given["b"]) p.batch = !p.lens.runs.empty() ? CountOf(p.lens) : !p.qlens.runs.empty() ? CountOf(p.qlens) : 1;
  if (!given["sq"] && !p.qlens.empty()) p.seq_q = p.qlens.Max();
  const bool know_sq = given["sq"] || !p.qlens.empty();
  if (!given["skv"]) {
    const bool like_sq = know_sq && p.phase != Phase::kDecode;
    p.seq_kv = !p.lens.empty() ? p.lens.Max() : like_sq ? p.seq_q : kDefaultLength;
  }
  if (!know_sq) p.seq_q = p.phase == Phase::kDecode ? 1 : p.seq_kv;
  if (!given["hq"] && given["hkv"]) p.heads_q = p.heads_kv;
  if (!given["hkv"]) p.heads_kv = p.heads_q;
  if (!given["dv"]) p.head_dim_v = p.head_dim;
  if (!given["kv"]) p.kv_dtype = p.dtype;
}

}  // namespace

std::string Print(const Problem& p) {
  std::string text = WriteName(static_cast<std::size_t>(p.phase), kPhases);
  for (const Word& word : kWords) {
    const Value value = word.write(p);
    if (!value) continue;
    text += " " + std::string(word.name);
    if (!value->empty()) text += "=" + *value;
  }
  return text;
}

Problem ParseProblem(std::string_view text) {
  constexpr Text kSpace = " \t\n\r\v\f";
  Problem p;
  Given given;
  std::size_t begin = text.find_first_not_of(kSpace);
  if (begin == text.npos) {
    throw Error("case", "no words", "a line such as \"prefill sq=1024 hq=32 hkv=8 d=128 dtype=bf16 causal\"");
  }
  while (begin != text.npos) {
    const std::size_t end = text.find_first_of(kSpace, begin);
    ReadWord(text.substr(begin, end - begin), p, given);
    begin = text.find_first_not_of(kSpace, end);
  }
  SettleDefaults(given, p);
  return p;
}

}  // namespace regard
