// A peer's child process under every way of failing: each ends as a reason, in time; the next case starts it afresh.
#include "cli/peer_process.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <string>

#include "cli/commands.h"

namespace regard::cli {

bool Interrupted() noexcept { return false; }  // the command's; nobody presses Ctrl-C here

namespace {

// A shell script in the place of the interpreter; it gets the worker's arguments and speaks its protocol.
class PeerProcess : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (std::filesystem::temp_directory_path() / "regard_peer_XXXXXX").string();
    folder_ = mkdtemp(pattern.data());
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  PeerSettings Script(const std::string& text, double seconds = 20) {
    const std::string path = folder_ + "/python";
    std::ofstream(path) << "#!/bin/sh\n" << text;
    chmod(path.c_str(), 0700);
    return {path, folder_ + "/worker.py", seconds, seconds};
  }
  std::string folder_;
};

const std::string kReady = "read line; echo 'ready {\"version\": \"lib 1.2\", \"how\": \"fast way\"}'\n";

TEST_F(PeerProcess, TellsVersionTimesAndOutput) {
  Peer peer("torch-sdpa", 2, 0, Script(kReady + "read line; echo 'took 0.25'; read line; echo done; read line"));
  ASSERT_TRUE(peer.Prepare("{}")) << peer.cannot();
  EXPECT_EQ(peer.version(), "lib 1.2");
  EXPECT_EQ(peer.how(), "fast way");
  EXPECT_EQ(peer.Run(7), 0.25);
  EXPECT_TRUE(peer.WriteOutput()) << peer.cannot();
}

TEST_F(PeerProcess, IsToldItsNameThreadsAndCase) {
  const std::string seen = folder_ + "/seen";
  Peer peer("ort-mha", 3, 0, Script("read line; echo \"$2 $3 $4 $5 $OMP_NUM_THREADS $OMP_WAIT_POLICY $line\" > " +
                                    seen + "; echo 'ready {}'; read line"));
  ASSERT_TRUE(peer.Prepare("{\"b\":1}")) << peer.cannot();
  std::string line;
  std::getline(std::ifstream(seen) >> std::ws, line);
  EXPECT_EQ(line, "--peer ort-mha --threads 3 3 passive case {\"b\":1}");
}

TEST_F(PeerProcess, SaysCannotInTheWordsOfTheChildWhichLivesOn) {
  Peer peer("ort-gqa", 1, 0, Script("read line; echo 'cannot do bf16'\n" + kReady + "read line"));
  EXPECT_FALSE(peer.Prepare("{}"));
  EXPECT_EQ(peer.cannot(), "do bf16");
  EXPECT_TRUE(peer.Prepare("{}")) << peer.cannot();
}

TEST_F(PeerProcess, SaysHowTheChildDied) {
  Peer peer("torch-sdpa", 1, 0, Script("echo first >&2; echo 'library is broken' >&2; exit 3"));
  EXPECT_FALSE(peer.Prepare("{}"));
  EXPECT_EQ(peer.cannot(), "its process ended with status 3: library is broken");
  Peer killed("torch-sdpa", 1, 0, Script(kReady + "read line; kill -ILL $$"));
  ASSERT_TRUE(killed.Prepare("{}")) << killed.cannot();
  EXPECT_FALSE(killed.Run(1));
  EXPECT_EQ(killed.cannot(), "its process ended with signal 4");
}

TEST_F(PeerProcess, StartsAfreshAfterADeath) {
  const std::string mark = folder_ + "/mark";
  const std::string die_once = "if [ ! -e " + mark + " ]; then touch " + mark + "; exit 1; fi\n";
  Peer peer("torch-sdpa", 1, 0, Script(die_once + kReady + "read line"));
  EXPECT_FALSE(peer.Prepare("{}"));
  EXPECT_TRUE(peer.Prepare("{}")) << peer.cannot();
  EXPECT_EQ(peer.cannot(), "");
}

TEST_F(PeerProcess, IsEndedWhenItTakesTooLong) {
  const std::string id = folder_ + "/id";
  Peer peer("torch-sdpa", 1, 0, Script("echo $$ > " + id + "\n" + kReady + "exec sleep 100", 1));
  ASSERT_TRUE(peer.Prepare("{}")) << peer.cannot();
  const auto start = std::chrono::steady_clock::now();
  EXPECT_FALSE(peer.Run(1));
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(30));
  EXPECT_EQ(peer.cannot(), "no answer within 1 s");
  pid_t child = 0;
  std::ifstream(id) >> child;
  ASSERT_GT(child, 0);
  EXPECT_EQ(kill(child, 0), -1);  // gone, and its exit collected
}

TEST_F(PeerProcess, RefusesAnswersThatMakeNoSense) {
  Peer talker("torch-sdpa", 1, 0, Script("read line; echo 'hello there'; read line"));
  EXPECT_FALSE(talker.Prepare("{}"));
  EXPECT_EQ(talker.cannot(), "answered 'hello there' where 'ready' was expected");
  Peer no_json("torch-sdpa", 1, 0, Script("read line; echo 'ready soon'; read line"));
  EXPECT_FALSE(no_json.Prepare("{}"));
  EXPECT_EQ(no_json.cannot(), "answered 'ready soon' where JSON was expected");
  for (const std::string time : {"-1", "0", "nan", "soon"}) {
    Peer liar("torch-sdpa", 1, 0, Script(kReady + "read line; echo 'took " + time + "'; read line"));
    ASSERT_TRUE(liar.Prepare("{}")) << liar.cannot();
    EXPECT_FALSE(liar.Run(1));
    EXPECT_EQ(liar.cannot(), "answered 'took " + time + "' where seconds were expected");
  }
}

TEST_F(PeerProcess, MissingInterpreterIsAReason) {
  Peer peer("torch-sdpa", 1, 0, {folder_ + "/none", "worker.py", 20, 20});
  EXPECT_FALSE(peer.Prepare("{}"));
  EXPECT_EQ(peer.cannot(), "its process ended with status 127");
}

}  // namespace
}  // namespace regard::cli
