// What explain prints: whole texts under a faked device, and JSON that parses.
#include <gtest/gtest.h>

#include <cctype>
#include <string>
#include <string_view>

#include "regard/regard.h"
#include "src/backend/json.h"

namespace regard {
namespace {

DeviceCaps Faked() {
  DeviceCaps caps;
  caps.name = "a faked \"CPU\"\n";
  caps.threads = 2;
  caps.read_gbps = 40;
  return caps;
}

// A strict reader of JSON that keeps nothing.
class JsonReader {
 public:
  explicit JsonReader(std::string_view text) : text_(text) {}
  bool Whole() { return Value() && (Space(), at_ == text_.size()); }

 private:
  void Space() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n')) ++at_;
  }
  bool Take(char c) {
    Space();
    if (at_ >= text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  bool Word(std::string_view word) {
    if (text_.substr(at_, word.size()) != word) return false;
    at_ += word.size();
    return true;
  }
  bool String() {
    if (!Take('"')) return false;
    for (; at_ < text_.size() && text_[at_] != '"'; ++at_) {
      if (static_cast<unsigned char>(text_[at_]) < 0x20) return false;
      if (text_[at_] == '\\') ++at_;
    }
    return Take('"');
  }
  bool Number() {
    const std::size_t begin = at_;
    while (at_ < text_.size() && (std::isdigit(static_cast<unsigned char>(text_[at_])) || std::string_view("+-.eE").find(text_[at_]) != std::string_view::npos)) ++at_;
    return at_ > begin;
  }
  template <class Item>
  bool List(char close, Item item) {
    if (Take(close)) return true;
    do {
      if (!item()) return false;
    } while (Take(','));
    return Take(close);
  }
  bool Value() {
    Space();
    if (Take('{')) return List('}', [&] { return String() && Take(':') && Value(); });
    if (Take('[')) return List(']', [&] { return Value(); });
    if (at_ < text_.size() && text_[at_] == '"') return String();
    return Word("true") || Word("false") || Word("null") || Number();
  }
  std::string_view text_;
  std::size_t at_ = 0;
};

TEST(Explain, TextTellsProblemDeviceChoiceNumericsAndPlan) {
  const Problem p = ParseProblem("decode b=2 sq=1 skv=3000 hq=32 hkv=8 d=128 dv=64 dtype=f32 kv=f8e4m3 page=1 causal window=99, sink");
  const Selection s = Select(p, Faked(), {});
  const Plan plan(p, s);
  const std::string text = ExplainText(p, Faked(), &plan, s);
  const auto has = [&](const char* part) { EXPECT_NE(text.find(part), std::string::npos) << part << "\nin\n" << text; };
  has("problem   decode  2 x (1 query over 3000 keys)  heads 32/8  d 128 dv 64  f32 over f8e4m3 keys  page 1 NHD  causal  window 99,open  sink\n");
  has("\nchosen    cpu.scalar.decode.f32   ");
  has("to read, about ");
  has("\nnumerics  scalar.f32.chain1.block512.split1024, invariance full\n");
  has("\nplan      3 splits of 1024 keys a sequence, all 8 kv heads in each");
  has("workspace ");
  has("\nrejected  ");
  has("can do it, about ");
  has("  -> ");
  has("rejected  cuda.sm80.prefill.bf16 and ");
  EXPECT_EQ(ExplainText(p, Faked(), nullptr, s).find("\nplan "), std::string::npos);
}

TEST(Explain, ReasonsStandInOneColumn) {
  const Problem p = ParseProblem("prefill sq=64 skv=64 dtype=bf16");
  const Selection s = Select(p, Faked(), {});
  const std::string text = ExplainText(p, Faked(), nullptr, s);
  const std::size_t seq_q = text.rfind('\n', text.find("seq_q 64, needs < 16"));
  const std::size_t slower = text.rfind('\n', text.find("can do it, about"));
  EXPECT_EQ(text.find("seq_q 64, needs < 16") - seq_q, text.find("can do it, about") - slower) << text;
}

TEST(Explain, SaysThatNothingIsGainedByLessInvariance) {
  const Problem p = ParseProblem("prefill sq=64 skv=64 invariance=none");
  const Selection s = Select(p, Faked(), {});
  EXPECT_NE(ExplainText(p, Faked(), nullptr, s).find("invariance none (no kernel gains from it"), std::string::npos);
}

TEST(Explain, TheEstimateCountsDropout) {
  for (const char* text : {"prefill sq=256 skv=256 d=64 dtype=f32", "backward sq=256 skv=256 d=64 dtype=bf16"}) {
    DeviceCaps caps = Faked();
    for (const Isa isa : {Isa::kScalar, Isa::kAvx2, Isa::kAvx512}) {
      if (isa != Isa::kScalar) caps.isas.push_back(isa);
      const Cost without = Select(ParseProblem(text), caps, {}).cost;
      const Cost with = Select(ParseProblem(std::string(text) + " dropout=0.1"), caps, {}).cost;
      EXPECT_GT(with.seconds, 1.02 * without.seconds) << text << " " << Name(isa);
      EXPECT_EQ(with.flops, without.flops) << "flops are those of the products";
    }
  }
}

TEST(Explain, JsonParsesWhateverTheDeviceIsCalled) {
  for (const char* text : {"decode sq=1 skv=3000 page=16", "prefill b=0 sq=0 skv=0", "mixed b=2 qlens=1,64 lens=64,64 varlen"}) {
    const Problem p = ParseProblem(text);
    const Selection s = Select(p, Faked(), {});
    const Plan plan(p, s);
    const std::string json = ExplainJson(p, Faked(), &plan, s);
    EXPECT_TRUE(JsonReader(json).Whole()) << json;
    EXPECT_NE(json.find("\"name\":\"a faked \\\"CPU\\\"\\u000a\""), std::string::npos) << json;
    EXPECT_NE(json.find("\"invariance\":\"full\""), std::string::npos) << json;
    EXPECT_NE(json.find("\"workspace_bytes\":" + std::to_string(plan.workspace_bytes())), std::string::npos) << json;
    EXPECT_TRUE(JsonReader(ExplainJson(p, Faked(), nullptr, s)).Whole());
  }
}

TEST(Json, WritesEveryKindOfValue) {
  JsonWriter w;
  w.Open('{').Member("s", "a\\b\t").Member("n", std::int64_t{-3}).Member("x", 0.5).Member("inf", 1.0 / 0.0).Member("t", true);
  w.Key("list").Open('[').Value(1).Value(2).Open('{').Close('}').Close(']').Close('}');
  EXPECT_EQ(w.Take(), R"({"s":"a\\b\u0009","n":-3,"x":0.5,"inf":null,"t":true,"list":[1,2,{}]})");
}

}  // namespace
}  // namespace regard
