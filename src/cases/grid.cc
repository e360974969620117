// The grid is text: each section crosses a few lists of words. Work per case is kept to a few million products, so that
// the fp64 oracle can follow.
#include "src/cases/grid.h"

#include <string>
#include <string_view>

namespace regard::cases {
namespace {

using Words = std::vector<std::string>;

constexpr std::size_t kQuickStep = 17;

const Words kFloatTypes = {"dtype=f32", "dtype=f16", "dtype=bf16"};
const Words kAllTypes = {"dtype=f32",  "dtype=f16",  "dtype=bf16",
                         "dtype=bf16 kv=f8e4m3", "dtype=f16 kv=f8e5m2", "dtype=f32 kv=f8e4m3", "dtype=f8e4m3",
                         "dtype=f8e5m2 out=f16"};

// Where keys live. An option that one of them forbids does not exist: every pair below is legal.
const Words kForms = {"",
                      "page=16",
                      "varlen",
                      "page=1 table=csr placement=random",
                      "order=bhsd",
                      "page=7 layout=HND placement=random",
                      "varlen page=16 layout=HND table=csr",
                      "page=256"};

const Words kOptions = {"causal",
                        "window=9,",
                        "window=,3",
                        "window=5,2",
                        "causal window=30,",
                        "chunk=16",
                        "causal chunk=23",
                        "softcap=15",
                        "scale=0.3",
                        "scale=-0.1",
                        "scale=0",
                        "alibi",
                        "bias",
                        "mask=0.3",
                        "sink",
                        "leftpad",
                        "qv",
                        "qoffset",
                        "qscale=8",
                        "scoremod",
                        "maskmod",
                        "append=4",
                        "append=3 rotary=half",
                        "append=5 rotary=interleaved",
                        "invariance=batch"};

// Of the backward pass, which knows no pages, appends, fp8 or functions.
const Words kBackwardForms = {"", "varlen", "order=bhsd", "varlen grad=f32", "grad=f32"};
const Words kBackwardOptions = {"causal",     "window=9,",   "window=,3",  "window=5,2", "chunk=16",    "causal chunk=23",
                                "softcap=15", "scale=0.3",   "scale=-0.1", "scale=0",    "alibi",       "bias",
                                "bias dbias", "mask=0.3",    "sink",       "sink dsink", "leftpad",     "qoffset",
                                "qscale=8",   "dropout=0.3", "dropout=1",  "dlse",       "out=f32",     "invariance=batch"};

// True if the two texts share a word's name ("window=9," and "window=5,2").
bool Share(std::string_view a, std::string_view b) {
  const auto names = [](std::string_view text) {
    std::vector<std::string_view> found;
    while (!text.empty()) {
      const std::size_t space = text.find(' ');
      const std::string_view word = text.substr(0, space);
      found.push_back(word.substr(0, word.find('=')));
      text = space == text.npos ? std::string_view() : text.substr(space + 1);
    }
    return found;
  };
  for (const std::string_view x : names(a)) {
    for (const std::string_view y : names(b)) {
      if (x == y) return true;
    }
  }
  return false;
}

// Collects cases; each gets its own seed, and four in five give the LSE too. Backward, which always reads the LSE: one
// in two has a gradient of it.
class Lines {
 public:
  void Add(const std::string& text) {
    const std::size_t n = problems_.size() + 1;
    Problem p = ParseProblem(text + " seed=" + std::to_string(n));
    const bool backward = p.phase == Phase::kBackward;
    p.lse = !backward && n % 5 != 0;
    p.dlse |= backward && n / 2 % 2 == 0;
    problems_.push_back(std::move(p));
  }
  // The count so far turns the lists that are not crossed.
  const std::string& Turn(const Words& words) const { return words[problems_.size() % words.size()]; }
  std::vector<Problem> Take() { return std::move(problems_); }

 private:
  std::vector<Problem> problems_;
};

void AddHeadDims(Lines& lines) {
  for (const std::string& type : kFloatTypes) {
    for (const char* dims : {"d=1", "d=8", "d=40", "d=64", "d=80", "d=96", "d=128", "d=192", "d=256", "d=320", "d=512",
                             "d=192 dv=128", "d=64 dv=128", "d=128 dv=40", "d=17 dv=33", "d=8 dv=1", "d=33 dv=512"}) {
      const std::string words = " " + type + " " + dims + " ";
      lines.Add("prefill sq=33 skv=129 hq=4 hkv=2 causal" + words + lines.Turn(kForms));
      lines.Add("prefill sq=70 skv=70 hq=1 hkv=1" + words + lines.Turn(kForms));
      lines.Add("decode b=2 sq=1 skv=300 hq=4 hkv=2" + words + lines.Turn(kForms));
    }
  }
}

void AddLengths(Lines& lines) {
  const int lengths[] = {0, 1, 3, 17, 127, 128, 129, 1037};
  const Words masks = {"", "causal", "window=40,8", "causal sink"};
  for (const std::string& type : kFloatTypes) {
    for (const int q : lengths) {
      for (const int kv : lengths) {
        lines.Add("prefill hq=2 hkv=1 d=40 sq=" + std::to_string(q) + " skv=" + std::to_string(kv) + " " + type + " " +
                  lines.Turn(masks) + " " + lines.Turn(kForms));
      }
    }
  }
}

void AddGroups(Lines& lines) {
  for (const std::string& type : kFloatTypes) {
    for (const char* heads : {"hq=1 hkv=1", "hq=2 hkv=2", "hq=2 hkv=1", "hq=3 hkv=1", "hq=4 hkv=1", "hq=5 hkv=1",
                              "hq=6 hkv=1", "hq=7 hkv=1", "hq=8 hkv=1", "hq=6 hkv=2", "hq=10 hkv=2", "hq=9 hkv=3",
                              "hq=14 hkv=2", "hq=15 hkv=5", "hq=16 hkv=2", "hq=12 hkv=1", "hq=33 hkv=3"}) {
      const std::string words = std::string(" ") + heads + " d=64 " + type + " ";
      lines.Add("prefill b=2 sq=18 skv=70 causal" + words + lines.Turn(kForms));
      lines.Add("decode b=2 sq=1 skv=140" + words + lines.Turn(kForms));
      lines.Add("decode sq=5 skv=140 causal" + words + lines.Turn(kForms));
    }
  }
}

void AddForms(Lines& lines) {
  Words forms = {"", "order=bhsd", "varlen", "varlen order=bhsd"};
  for (const char* page : {"page=1", "page=7", "page=16", "page=256"}) {
    for (const char* layout : {"layout=NHD", "layout=HND"}) {
      for (const char* table : {"", " table=csr", " placement=random", " varlen", " varlen table=csr placement=random"}) {
        forms.push_back(std::string(page) + " " + layout + table);
      }
    }
  }
  for (const std::string& type : kAllTypes) {
    for (const std::string& form : forms) {
      const std::string words = " hq=4 hkv=2 d=64 " + type + " " + form;
      lines.Add("prefill lens=90,0,33,129 qlens=20,3,33,17 causal" + words);
      lines.Add("decode lens=260,1,77,0,128 sq=1" + words);
      lines.Add("mixed lens=130,64,1,300 qlens=50,1,1,4 causal" + words);
    }
  }
}

void AddOptions(Lines& lines) {
  for (std::size_t a = 0; a < kOptions.size(); ++a) {
    for (std::size_t b = a; b < kOptions.size(); ++b) {
      if (a != b && Share(kOptions[a], kOptions[b])) continue;
      const std::string options = a == b ? kOptions[a] : kOptions[a] + " " + kOptions[b];
      for (const std::string& type : kAllTypes) {
        const std::string words = " hq=4 hkv=2 d=32 " + type + " " + options + " ";
        lines.Add("prefill b=2 sq=37 skv=75" + words + lines.Turn(kForms));
        lines.Add("decode lens=150,33,7 sq=1" + words + lines.Turn(kForms));
      }
      lines.Add("mixed lens=40,140,9 qlens=40,1,6 hq=6 hkv=2 d=48 dv=24 " + lines.Turn(kAllTypes) + " " + options + " " +
                lines.Turn(kForms));
    }
  }
}

void AddLargeScores(Lines& lines) {
  for (const std::string& type : kAllTypes) {
    for (const char* size : {"qscale=4", "qscale=16", "qscale=16 softcap=30", "qscale=16 causal", "qscale=4 alibi sink"}) {
      for (const char* dim : {"d=64", "d=128"}) {
        const std::string words = std::string(" hq=4 hkv=2 ") + size + " " + dim + " " + type + " ";
        lines.Add("prefill sq=40 skv=160" + words + lines.Turn(kForms));
        lines.Add("decode sq=1 skv=400 b=2" + words + lines.Turn(kForms));
      }
    }
  }
}

// Padding, page slots and keys of other sequences hold NaN: dropping must not let it in.
void AddDropout(Lines& lines) {
  const Words options = {"", "causal", "causal window=30,", "window=5,2", "causal chunk=23 sink", "softcap=15 causal",
                         "leftpad causal", "leftpad sink window=40,", "alibi bias mask=0.3", "qv", "qoffset scale=-0.1",
                         "scoremod maskmod", "append=3 rotary=half causal"};
  for (const char* dropout : {"dropout=0.1 ", "dropout=0.5 ", "dropout=1 "}) {
    for (const std::string& option : options) {
      for (const std::string& type : kAllTypes) {
        const std::string words = " hq=6 hkv=2 d=32 " + type + " " + dropout + option + " ";
        lines.Add("prefill lens=75,40,129 qlens=37,40,17" + words + lines.Turn(kForms));
        lines.Add("decode lens=150,33,7 sq=1" + words + lines.Turn(kForms));
        lines.Add("mixed lens=40,140,9 qlens=40,1,6" + words + lines.Turn(kForms));
      }
    }
  }
  for (const std::string& type : kAllTypes) {
    for (const char* option : {"", "leftpad", "window=4500,"}) {
      const std::string words = std::string(" hq=4 hkv=2 d=64 dropout=0.1 ") + type + " " + option + " ";
      lines.Add("decode lens=9001,4096,517 sq=1" + words + lines.Turn(kForms));
      lines.Add("prefill sq=17 skv=2503 causal" + words + lines.Turn(kForms));
    }
  }
}

void AddAppends(Lines& lines) {
  for (const std::string& type : kAllTypes) {
    for (const std::string& form : kForms) {
      for (const char* append : {"append=1", "append=1 rotary=half causal", "append=6 rotary=interleaved causal",
                                 "append=6 causal leftpad", "append=6 rotary=half"}) {
        const std::string words = std::string(" hq=4 hkv=2 d=64 ") + append + " " + type + " " + form;
        lines.Add("decode lens=100,6,31 sq=1" + words);
        lines.Add("prefill lens=100,20,31 qlens=6,20,17" + words);
      }
    }
  }
}

// Long enough for several splits of any kernel.
void AddLongKeys(Lines& lines) {
  for (const std::string& type : kAllTypes) {
    for (const char* options : {"", "window=4500,", "leftpad", "softcap=20 sink"}) {
      lines.Add("decode lens=9001,4096,4097 sq=1 hq=4 hkv=2 d=64 " + type + " " + options + " " + lines.Turn(kForms));
      lines.Add("prefill sq=17 skv=5003 hq=2 hkv=1 d=64 causal " + type + " " + options + " " + lines.Turn(kForms));
    }
  }
}

void AddBackward(Lines& lines) {
  const Words masks = {"", "causal", "window=40,8", "causal sink dsink"};
  const int lengths[] = {0, 1, 3, 17, 127, 129};
  for (const std::string& type : kFloatTypes) {
    for (const int q : lengths) {
      for (const int kv : lengths) {
        lines.Add("backward hq=2 hkv=1 d=40 sq=" + std::to_string(q) + " skv=" + std::to_string(kv) + " " + type + " " +
                  lines.Turn(masks) + " " + lines.Turn(kBackwardForms));
      }
    }
    for (const char* dims : {"d=1", "d=8", "d=40", "d=64", "d=80", "d=96", "d=128", "d=192", "d=256", "d=320", "d=512",
                             "d=192 dv=128", "d=64 dv=128", "d=128 dv=40", "d=17 dv=33", "d=8 dv=1", "d=33 dv=512"}) {
      const std::string words = " " + type + " " + dims + " ";
      lines.Add("backward sq=33 skv=70 hq=4 hkv=2 causal" + words + lines.Turn(kBackwardForms));
      lines.Add("backward sq=20 skv=20 hq=1 hkv=1" + words + lines.Turn(kBackwardForms));
    }
    for (const char* heads : {"hq=1 hkv=1", "hq=2 hkv=2", "hq=3 hkv=1", "hq=4 hkv=1", "hq=5 hkv=1", "hq=8 hkv=1",
                              "hq=6 hkv=2", "hq=9 hkv=3", "hq=16 hkv=2", "hq=33 hkv=3"}) {
      lines.Add(std::string("backward b=2 sq=18 skv=40 d=64 causal ") + heads + " " + type + " " +
                lines.Turn(kBackwardForms));
    }
    for (const char* form : {"", "varlen", "order=bhsd", "grad=f32"}) {
      const std::string words = " hq=4 hkv=2 d=64 " + type + " " + form;
      lines.Add("backward lens=90,0,33,129 qlens=20,3,33,17 causal" + words);
      lines.Add("backward lens=140,1,77,0,128 qlens=140,1,9,2,0" + words);
      lines.Add("backward lens=30,200,7 qlens=60,3,7 causal leftpad dropout=0.2" + words);
    }
    for (const char* size : {"qscale=4", "qscale=16", "qscale=16 softcap=30", "qscale=16 causal", "qscale=4 alibi sink dsink"}) {
      lines.Add(std::string("backward sq=40 skv=160 hq=4 hkv=2 d=64 ") + size + " " + type + " " +
                lines.Turn(kBackwardForms));
    }
    lines.Add("backward sq=400 skv=300 hq=2 hkv=1 d=128 " + type);
    lines.Add("backward sq=300 skv=520 hq=4 hkv=2 d=64 causal bias dbias sink dsink " + type);
  }
  for (std::size_t a = 0; a < kBackwardOptions.size(); ++a) {
    for (std::size_t b = a; b < kBackwardOptions.size(); ++b) {
      const std::string &x = kBackwardOptions[a], &y = kBackwardOptions[b];
      if (a != b && Share(x, y)) continue;
      const std::string words = " hq=4 hkv=2 d=32 dv=24 " + (a == b ? x : x + " " + y) + " ";
      for (const std::string& type : kFloatTypes) {
        lines.Add("backward b=2 sq=37 skv=75 " + type + words + lines.Turn(kBackwardForms));
      }
    }
  }
}

}  // namespace

std::vector<Problem> Grid(GridSize size) {
  Lines lines;
  AddHeadDims(lines);
  AddLengths(lines);
  AddGroups(lines);
  AddForms(lines);
  AddOptions(lines);
  AddLargeScores(lines);
  AddDropout(lines);
  AddAppends(lines);
  AddLongKeys(lines);
  AddBackward(lines);
  std::vector<Problem> all = lines.Take();
  if (size == GridSize::kAll) return all;
  std::vector<Problem> quick;
  for (std::size_t n = 0; n < all.size(); n += kQuickStep) quick.push_back(all[n]);
  return quick;
}

}  // namespace regard::cases
