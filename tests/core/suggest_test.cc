// Nearest known word.

#include "src/core/suggest.h"

#include <gtest/gtest.h>

#include <array>
#include <string>

namespace regard {
namespace {

constexpr std::array<std::string_view, 7> kWords = {"causal", "window", "softcap", "scale", "page", "b", "f8e4m3"};

TEST(Suggest, FindsTheWordBehindATypo) {
  EXPECT_EQ(Nearest("casual", kWords), "causal");
  EXPECT_EQ(Nearest("widow", kWords), "window");
  EXPECT_EQ(Nearest("softcapp", kWords), "softcap");
  EXPECT_EQ(Nearest("Scale", kWords), "scale");
  EXPECT_EQ(Nearest("pgae", kWords), "page");
  EXPECT_EQ(Nearest("f8e4m", kWords), "f8e4m3");
}

TEST(Suggest, StaysSilentWhereNothingIsNear) {
  EXPECT_EQ(Nearest("zebra", kWords), "");
  EXPECT_EQ(Nearest("", kWords), "");
  EXPECT_EQ(Nearest("x", kWords), "");
  EXPECT_EQ(Nearest(std::string(100000, 'a'), kWords), "");
  EXPECT_EQ(Nearest("causal", {}), "");
}

TEST(Suggest, KnownWordIsItsOwnNearest) {
  for (const std::string_view word : kWords) EXPECT_EQ(Nearest(word, kWords), word);
}

}  // namespace
}  // namespace regard
