// Embedded files are the files, byte for byte; the hash changes with every one of them.
#include <gtest/gtest.h>

#include <set>
#include <string>

#include "src/cuda/sources.h"
#include "tests/cuda/support.h"

namespace regard::cuda {

EmbeddedSet EmbeddedOddSources();
EmbeddedSet EmbeddedNoSources();

namespace {

TEST(Sources, OddTextsAndEmptyFilesAreEmbeddedLetterByLetter) {
  const EmbeddedSet set = EmbeddedOddSources();
  ASSERT_EQ(set.files.size(), 3u);
  std::set<std::string> names;
  for (const EmbeddedFile& file : set.files) {
    names.insert(file.name);
    EXPECT_EQ(file.text, ReadFile(std::string(REGARD_TEST_ODD_FOLDER) + "/" + file.name)) << file.name;
  }
  EXPECT_EQ(names, (std::set<std::string>{"deep/er/unicode.cuh", "empty.h", "odd.h"}));
}

TEST(Sources, FolderWithoutFilesGivesAnEmptyTable) {
  EXPECT_TRUE(EmbeddedNoSources().files.empty());
  EXPECT_EQ(std::string(EmbeddedNoSources().hash).size(), 64u);
}

TEST(Sources, SetsOfDifferentFilesHaveDifferentHashes) {
  EXPECT_NE(std::string(EmbeddedNoSources().hash), EmbeddedOddSources().hash);
  EXPECT_NE(std::string(EmbeddedSources().hash), EmbeddedOddSources().hash);
}

TEST(Sources, KernelsAreThere) {
  std::set<std::string> names;
  for (const EmbeddedFile& file : EmbeddedSources().files) names.insert(file.name);
  EXPECT_TRUE(names.contains("base/params.h"));
  EXPECT_TRUE(names.contains("ptx/mma.h"));
}

}  // namespace
}  // namespace regard::cuda
