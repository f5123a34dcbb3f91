// `smlp data ...` as a user meets it: the real program, run by a shell in a scratch folder.
#include <gmock/gmock.h>
#include <sys/wait.h>

#include <chrono>
#include <csignal>
#include <nlohmann/json.hpp>
#include <thread>

#include "tests/data/scratch.h"

namespace smlp::test {
namespace {

using nlohmann::json;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

struct Answer {
  int code = -1;
  std::string out, err;
};

class DataCommands : public testing::Test {
 protected:
  void SetUp() override {
    if (std::getenv("SMLP_PROGRAM") == nullptr) GTEST_SKIP() << "SMLP_PROGRAM names the smlp to test";
    std::string lines;
    for (int i = 0; i < 300; ++i) lines += "the cat sat on the mat number " + std::to_string(i) + "\n";
    write_file(place / "in.txt", lines);
  }
  // A folder of 96 MB: what reads it is at it for long.
  void write_long_text(const std::string& folder) {
    std::string text;
    while (text.size() < (8 << 20)) text += "x" + std::to_string(text.size() * 7919) + " ";
    for (int i = 0; i < 12; ++i) write_file(place / (folder + "/" + std::to_string(i)), text);
  }
  // `smlp` in the line is the program.
  Answer shell(const std::string& line) {
    const auto script = "smlp() { \"" + std::string(std::getenv("SMLP_PROGRAM")) + "\" \"$@\"; }\ncd '" +
                        place.root().string() + "'\n{ " + line + "\n} > .out 2> .err\n";
    write_file(place / ".script", script);
    const int status = std::system(("sh '" + (place / ".script") + "'").c_str());
    return {WEXITSTATUS(status), read_file(place / ".out"), read_file(place / ".err")};
  }
  Scratch place;
};

TEST_F(DataCommands, HaveHelpWithAnExample) {
  for (const std::string name : {"", "prepare", "train-tokenizer", "inspect", "encode", "decode"}) {
    const auto answer = shell("smlp data " + name + " --help");
    EXPECT_EQ(answer.code, 0);
    EXPECT_THAT(answer.out, HasSubstr("Example:\n  smlp data " + name));
    EXPECT_EQ(answer.err, "");
  }
}

TEST_F(DataCommands, GoFromTextToTokensAndBack) {
  const auto trained = shell("smlp data train-tokenizer --input in.txt --vocabulary 300 --output bpe --json");
  ASSERT_EQ(trained.code, 0) << trained.err;
  const auto facts = json::parse(trained.out);
  EXPECT_EQ(facts["bytes"], static_cast<int>(read_file(place / "in.txt").size()));
  EXPECT_LE(facts["vocabulary"], 300);

  const auto prepared = shell(
      "smlp data prepare --input in.txt --tokenizer bpe --output t/train --valid-output t/valid "
      "--valid-share 0.1 --json");
  ASSERT_EQ(prepared.code, 0) << prepared.err;
  const auto counts = json::parse(prepared.out);
  EXPECT_EQ(counts["train"]["bytes"].get<int>() + counts["valid"]["bytes"].get<int>(),
            facts["bytes"].get<int>());

  const auto inspected = shell("smlp data inspect t/train --every-token --json");
  ASSERT_EQ(inspected.code, 0) << inspected.err;
  const auto file = json::parse(inspected.out);
  EXPECT_EQ(file["layout"], "megatron");
  EXPECT_EQ(file["type"], "u16");
  EXPECT_EQ(file["documents"], 1);
  EXPECT_EQ(file["tokens"], counts["train"]["tokens"]);
  EXPECT_EQ(file["largest_token"], facts["vocabulary"].get<int>() - 1);  // the end of text
  EXPECT_EQ(file["first_tokens"].size(), 16u);
  EXPECT_EQ(file["notes"], counts["train"]);
  EXPECT_THAT(shell("smlp data inspect t/train").out, HasSubstr("megatron layout of u16, 1 documents"));

  EXPECT_EQ(
      shell("smlp data encode --tokenizer bpe < in.txt | smlp data decode --tokenizer bpe | cmp - in.txt")
          .code,
      0);
  EXPECT_EQ(
      shell("smlp data encode --whole --tokenizer bpe < in.txt | smlp data decode --whole --tokenizer bpe | "
            "cmp - in.txt")
          .code,
      0);
  EXPECT_EQ(shell("printf 'ab\\n\\nc\\n' | smlp data encode --tokenizer bytes").out, "97 98\n\n99\n");
  EXPECT_EQ(shell("printf '97 98\\n\\n99 256\\n' | smlp data decode --tokenizer bytes").out,
            "ab\n\nc<|endoftext|>\n");
}

TEST_F(DataCommands, SayWhatIsWrongInASentence) {
  const std::vector<std::tuple<std::string, int, std::string>> table = {
      {"smlp data", 64, "needs a command"},
      {"smlp data prepare --input in.txt --output t", 64, "--tokenizer is required"},
      {"smlp data prepare --input in.txt --tokenizer bytes --output t --valid-share 0.1", 64, "together"},
      {"smlp data prepare --input in.txt --tokenizer bytes --output t --valid-output ./t --valid-share 0.1", 64,
       "different prefixes"},
      {"smlp data train-tokenizer --input in.txt --vocabulary 12 --output t", 64, "257 tokens at least"},
      // It was said of the largest number that a computer takes for it.
      {"smlp data train-tokenizer --input in.txt --vocabulary 99999999999999999999 --output t", 64,
       "'99999999999999999999' is not a whole number"},
      {"smlp data prepare --input none.txt --tokenizer bytes --output t", 78, "no file or folder none.txt"},
      {"smlp data prepare --input in.txt --tokenizer nowhere --output t", 78, "no tokenizer nowhere"},
      {"smlp data inspect in.txt", 78, "smlp data prepare --input in.txt"},
      {"cp in.txt x.idx; cp in.txt x.bin; smlp data inspect x", 65, "MMIDIDX"},
      {"echo 1 x | smlp data decode --tokenizer bytes", 65, "line 1: \"x\""},
      {"echo 1 99999999999 | smlp data decode --tokenizer bytes", 65, "99999999999"},
      {"echo 300 | smlp data decode --tokenizer bytes", 65, "no token 300"},
      {"smlp data encode --tokenizer bytes < in.txt > /dev/full", 74,
       "writing to the standard output failed"},
      {"touch file; smlp data prepare --input in.txt --tokenizer bytes --output file/t", 74, "file"},
  };
  for (const auto& [line, code, sentence] : table) {
    const auto answer = shell(line);
    EXPECT_EQ(answer.code, code) << line;
    EXPECT_THAT(answer.err, StartsWith("smlp: ")) << line;
    EXPECT_THAT(answer.err, HasSubstr(sentence)) << line;
    EXPECT_EQ(answer.out, "") << line;
  }
}

// Each ended the program: a sentence held the whole value, however deep, and opening a pipe waited for a writer.
TEST_F(DataCommands, HostileFilesAreRefusedInASentence) {
  ASSERT_EQ(shell("smlp data prepare --input in.txt --tokenizer bytes --output t").code, 0);
  const std::string nested = std::string(100000, '[') + std::string(100000, ']');
  write_file(place / "t.json", "{\"bytes\": " + nested + "}");
  const auto notes = shell("smlp data inspect t");
  EXPECT_EQ(notes.code, 65);
  EXPECT_THAT(notes.err, StartsWith("smlp: t.json is damaged (an array is no whole number)"));
  write_file(place / "bpe/vocab.json", "{\"a\": " + nested + "}");
  const auto vocabulary = shell("touch bpe/merges.txt; echo a | smlp data encode --tokenizer bpe");
  EXPECT_EQ(vocabulary.code, 65);
  EXPECT_THAT(vocabulary.err, HasSubstr("the id of \"a\" is an array instead of a number"));
  const auto pipe = shell("rm t.json t.idx; mkfifo t.idx; smlp data inspect t");
  EXPECT_EQ(pipe.code, 78);
  EXPECT_EQ(pipe.err, "smlp: t.idx is not an ordinary file\n");
}

// A short answer fails only when it is flushed: `inspect` and `prepare` once lost theirs with exit code 0.
TEST_F(DataCommands, FailWhenTheirLastWordsCannotBeWritten) {
  ASSERT_EQ(shell("smlp data prepare --input in.txt --tokenizer bytes --output t").code, 0);
  for (const std::string line : {"echo a | smlp data encode --tokenizer bytes", "smlp data inspect t --json",
                                 "smlp data prepare --input in.txt --tokenizer bytes --output u"}) {
    const auto answer = shell(line + " > /dev/full");
    EXPECT_EQ(answer.code, 74) << line;
    EXPECT_THAT(answer.err, HasSubstr("writing to the standard output failed")) << line;
  }
  const auto long_answer = shell("smlp config keys --json > /dev/full");
  EXPECT_EQ(long_answer.code, 74);
  EXPECT_THAT(long_answer.err, Not(HasSubstr("defect")));
}

// A folder, or no input at all, was an empty text and exit code 0.
TEST_F(DataCommands, FailWhenTheirInputCannotBeRead) {
  for (const std::string name : {"encode", "decode", "encode --whole", "decode --whole"}) {
    for (const auto& [input, reason] : {std::pair("< .", "Is a directory"), std::pair("<&-", "Bad file descriptor")}) {
      const auto answer = shell("smlp data " + name + " --tokenizer bytes " + input);
      EXPECT_EQ(answer.code, 74) << name << input;
      EXPECT_THAT(answer.err, StartsWith("smlp: reading the standard input failed: " + std::string(reason))) << name << input;
      EXPECT_EQ(answer.out, "");
    }
  }
  EXPECT_EQ(shell("smlp data encode --tokenizer bytes < /dev/null").out, "");
  EXPECT_EQ(shell("printf 'a\n\nb' | smlp data encode --tokenizer bytes").out, "97\n\n98\n") << "the last line may lack its end";
  EXPECT_EQ(shell("(printf a; sleep 0.1; printf 'b\nc'; sleep 0.1; printf 'd\n') | smlp data encode --tokenizer bytes").out,
            "97 98\n99 100\n")
      << "lines in parts";
}

// SIGXFSZ ended it without a word, and half a token file stayed.
TEST_F(DataCommands, AFileThatMayGrowNoMoreIsAFailedWrite) {
  const auto answer = shell(
      "head -c 100000 /dev/zero | tr '\\0' a > big.txt; ulimit -f 10; smlp data prepare --input big.txt --tokenizer bytes "
      "--output big");
  EXPECT_EQ(answer.code, 74);
  EXPECT_THAT(answer.err, HasSubstr("big.bin"));
  EXPECT_THAT(shell("ls big.*").out, "big.txt\n");
}

// What is wrong could not be said, and the exit code was that of an abort.
TEST_F(DataCommands, KeepTheirExitCodeWhereTheErrorCannotBeWritten) {
  for (const std::string nowhere : {" 2> /dev/full", " 2>&-"}) {
    EXPECT_EQ(shell("smlp nonsense" + nowhere).code, 64) << nowhere;
    EXPECT_EQ(shell("smlp data inspect in.txt" + nowhere).code, 78) << nowhere;
    EXPECT_EQ(shell("echo 300 | smlp data decode --tokenizer bytes" + nowhere).code, 65) << nowhere;
    EXPECT_EQ(shell("smlp data train-tokenizer --input in.txt --vocabulary 60000 --output b" + nowhere).code, 0) << nowhere;
  }
}

TEST_F(DataCommands, NoteThatATextIsTooSmallForTheVocabulary) {
  const auto answer = shell(
      "echo hello hello > small.txt; smlp data train-tokenizer --input small.txt --vocabulary 4096 --output "
      "b");
  EXPECT_EQ(answer.code, 0);
  EXPECT_THAT(answer.err, HasSubstr("note: only 261 of 4096 tokens"));
}

TEST_F(DataCommands, LeaveNothingBehindWhenInterrupted) {
  write_long_text("in");
  // Interrupted as soon as temporary files are there, which is long before 96 MB are through.
  const auto answer = shell(
      "mkdir t\n\"$SMLP_PROGRAM\" data prepare --input in --tokenizer bytes --output t/x &\n"
      "while [ -z \"$(ls t)\" ]; do kill -0 $! || break; done\nkill -TERM $!\nwait $!");
  EXPECT_EQ(answer.code, 75) << answer.err;
  EXPECT_THAT(answer.err, HasSubstr("stopped on request: no token file was written"));
  EXPECT_TRUE(std::filesystem::is_empty(place / "t"));
}

// A terminal that was closed, or SLURM's warning, ended it at once, and its temporary files stayed.
TEST_F(DataCommands, LeaveNothingBehindWhateverSignalAsksThemToStop) {
  write_long_text("in");
  for (const std::string number : {"HUP", "USR1", "INT", "TERM"}) {
    const auto answer = shell(
        "mkdir -p t\n\"$SMLP_PROGRAM\" data prepare --input in --tokenizer bytes --output t/x &\n"
        "while [ -z \"$(ls t)\" ]; do kill -0 $! || break; done\nkill -" + number + " $!\nwait $!");
    EXPECT_EQ(answer.code, 75) << number << ": " << answer.err;
    EXPECT_TRUE(std::filesystem::is_empty(place / "t")) << number;
  }
  const auto under_nohup = shell(
      "trap '' HUP\n\"$SMLP_PROGRAM\" data prepare --input in --tokenizer bytes --output t/x &\n"
      "while [ -z \"$(ls t)\" ]; do kill -0 $! || break; done\ngrep SigIgn /proc/$!/status\nkill -TERM $!\nwait $!");
  EXPECT_EQ(under_nohup.code, 75) << under_nohup.err;
  EXPECT_THAT(under_nohup.out, testing::ContainsRegex("SigIgn:.*[13579bdf]\n")) << "the lowest bit: nohup ignores it on purpose";
}

// Both ended with 0, and the tokens of one lay beside the index of the other.
TEST_F(DataCommands, OneProcessWritesAnOutput) {
  write_long_text("in");
  const auto answer = shell(
      "mkdir t\n\"$SMLP_PROGRAM\" data prepare --input in --tokenizer bytes --output t/x &\n"
      "while [ -z \"$(ls t)\" ]; do kill -0 $! || break; done\n"
      "smlp data prepare --input in.txt --tokenizer bytes --output ./t/x; echo $?\n"
      "smlp data prepare --input in.txt --tokenizer bytes --output t/y >y.out; echo $?\n"
      "kill -TERM $!\nwait $!");
  EXPECT_EQ(answer.code, 75) << "the first, stopped";
  EXPECT_EQ(answer.out, "75\n0\n");
  EXPECT_THAT(answer.err, StartsWith("smlp: ./t/x is in use by process "));
  EXPECT_EQ(shell("ls -A t").out, "y.bin\ny.idx\ny.json\n");
}

}  // namespace
}  // namespace smlp::test
