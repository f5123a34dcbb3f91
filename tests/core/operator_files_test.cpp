// Requests to a live run, the book of its seconds, and lenient reading of lines: what the launcher, the ranks and the
// commands that look at a run share.
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "core/control_folder.h"
#include "core/error.h"
#include "core/files.h"
#include "core/goodput.h"
#include "core/json_lines.h"

namespace smlp {
namespace {

class OperatorFiles : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "smlp-operator-XXXXXX";
    folder = mkdtemp(pattern.data());
  }
  void TearDown() override { std::filesystem::remove_all(folder); }
  std::filesystem::path folder;
};

TEST(Goodput, EverySecondIsInOnePhase) {
  Goodput book(100);
  book.step_done(110, 1, {.whole = 4, .data = 1, .exchange = 0.5, .checkpoint = 0.25}, true);
  EXPECT_DOUBLE_EQ(book[Spent::restart], 6);
  EXPECT_DOUBLE_EQ(book[Spent::data_stall], 1);
  EXPECT_DOUBLE_EQ(book[Spent::exchange_wait], 0.5);
  EXPECT_DOUBLE_EQ(book[Spent::checkpoint_stall], 0.25);
  EXPECT_DOUBLE_EQ(book[Spent::productive], 2.25);
  book.step_done(113, 2, {.whole = 2, .data = 9}, false);  // more than there was: no more than there was
  EXPECT_DOUBLE_EQ(book[Spent::data_stall], 4);
  EXPECT_DOUBLE_EQ(book.total(), 13);
}

TEST(Goodput, AStepDoneAgainIsLostWorkAndNoPhaseShrinks) {
  Goodput book(0);
  for (int step = 1; step <= 4; ++step) book.step_done(step, step, {.whole = 1}, step == 1);
  book.pass(6, Spent::lost_work);
  book.step_done(10, 3, {.whole = 1}, true);
  book.step_done(11, 4, {.whole = 1, .data = 1}, false);
  book.step_done(12, 5, {.whole = 1}, false);
  EXPECT_DOUBLE_EQ(book[Spent::productive], 5);
  EXPECT_DOUBLE_EQ(book[Spent::lost_work], 4);
  EXPECT_DOUBLE_EQ(book[Spent::restart], 3);
  EXPECT_EQ(book.highest_step(), 5);
  book.pass(7, Spent::waiting);  // a clock that went back
  EXPECT_DOUBLE_EQ(book[Spent::waiting], 0);
  EXPECT_DOUBLE_EQ(book.total(), 12);
}

TEST_F(OperatorFiles, TheBookThatCoversMostIsTheNewest) {
  const RunDirectory run{folder};
  EXPECT_FALSE(read_goodput(run));
  Goodput book(0);
  const auto write = [&](const std::filesystem::path& file) {
    nlohmann::json line;
    book.write_into(line);
    append_line(file, line.dump());
  };
  book.pass(5, Spent::restart);
  write(run.ledger());
  book.step_done(9, 1, {.whole = 4}, false);
  write(run.metrics());
  append_line(run.metrics(), R"({"time":1,"highest_step":9,"goodput_seconds_total":{"productive":1e9}})");
  append_line(run.metrics(), R"({"time":1,"step":2})");
  ASSERT_TRUE(read_goodput(run));
  EXPECT_DOUBLE_EQ(read_goodput(run)->total(), 9);
  EXPECT_EQ(read_goodput(run)->highest_step(), 1);
  EXPECT_DOUBLE_EQ(read_goodput(run)->time(), 9);
}

TEST_F(OperatorFiles, ALineAfterAHalfOneStandsAlone) {
  std::ofstream(folder / "x.jsonl") << R"({"step": 1}
{"step": 2)";
  append_line(folder / "x.jsonl", R"({"step": 3})");
  append_line(folder / "x.jsonl", R"([4])");
  append_line(folder / "x.jsonl", R"({"step": 5})");
  std::vector<std::int64_t> steps;
  const auto take = [&](const nlohmann::json& line) { steps.push_back(integer_in(line, "step").value_or(-1)); };
  read_json_lines(folder / "x.jsonl", take);
  EXPECT_EQ(steps, (std::vector<std::int64_t>{1, 3, 5}));
  steps.clear();
  read_json_lines(folder / "x.jsonl", take, 20);  // begins within a line
  EXPECT_EQ(steps, (std::vector<std::int64_t>{5}));
}

TEST_F(OperatorFiles, WhatIsNoWholeNumberIsNotMadeOne) {
  for (const char* none : {"1.5", "1e30", "true", "9223372036854775808", "\"1\""}) {
    const auto value = nlohmann::json::parse(none);
    EXPECT_EQ(integer_in({{"step", value}}, "step"), std::nullopt) << none;
    EXPECT_THROW(whole_number(value), Error) << none;
  }
  EXPECT_EQ(whole_number(-3), -3);
  EXPECT_EQ(whole_numbers({1, 2}), (std::vector<std::int64_t>{1, 2}));
  EXPECT_THROW(whole_numbers(1), Error);
}

TEST_F(OperatorFiles, ARequestIsSeenOnceAnsweredAndGone) {
  ControlFolder asker(folder / "control"), hearer(folder / "control");
  asker.create();
  struct stat facts {};
  ASSERT_EQ(::stat((folder / "control").c_str(), &facts), 0);
  EXPECT_EQ(facts.st_mode & 07, 0u);
  EXPECT_TRUE(hearer.changed());
  for (int i = 0; i < 5; ++i) hearer.changed();
  EXPECT_FALSE(hearer.changed());
  const auto request = new_request(RequestKind::stop_after, 40);
  asker.ask(request);
  EXPECT_TRUE(hearer.changed());
  const auto heard = hearer.requests();
  ASSERT_EQ(heard.size(), 1u);
  EXPECT_EQ(heard[0].id, request.id);
  EXPECT_EQ(heard[0].kind, RequestKind::stop_after);
  EXPECT_EQ(heard[0].step, 40);
  hearer.answer({request.id, "accepted", 7, "noted"});
  EXPECT_EQ(asker.answer_to(request.id)->step, 7);
  EXPECT_EQ(hearer.requests().size(), 1u) << "it still stands";
  hearer.answer({request.id, "done", 40, "left"});
  EXPECT_TRUE(hearer.requests().empty());
  asker.clear(request.id);
  EXPECT_FALSE(asker.answer_to(request.id));
  EXPECT_TRUE(std::filesystem::is_empty(folder / "control"));
}

TEST_F(OperatorFiles, ThatAFolderIsAskedForIsNoReasonToFollowALinkOrToWaitForAPipe) {
  EXPECT_FALSE(read_plain_file("/dev/zero", 100));
  EXPECT_FALSE(read_plain_file(folder, 100));
  std::ofstream(folder / "file") << "12345";
  EXPECT_EQ(read_plain_file(folder / "file", 5), "12345");
  EXPECT_FALSE(read_plain_file(folder / "file", 4));
  std::filesystem::create_symlink("file", folder / "link");
  EXPECT_FALSE(read_plain_file(folder / "link", 100));
  ASSERT_EQ(mkfifo((folder / "pipe").c_str(), 0600), 0);
  EXPECT_FALSE(read_plain_file(folder / "pipe", 100));
  std::filesystem::create_directory_symlink("/tmp", folder / "control");
  EXPECT_ANY_THROW(ControlFolder(folder / "control").create());
}

}  // namespace
}  // namespace smlp
