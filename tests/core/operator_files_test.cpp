// Requests to a live run, the book of its seconds, and lenient reading of lines: what the launcher, the ranks and the
// commands that look at a run share.
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "core/clock.h"
#include "core/control_folder.h"
#include "core/error.h"
#include "core/files.h"
#include "core/goodput.h"
#include "core/json_lines.h"
#include "core/json_text.h"

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

// What an evaluation behind an attempt's first step took was the restart's.
TEST(Goodput, AnEvaluationBehindTheFirstStepIsProductive) {
  Goodput book(100);
  book.step_done(110, 1, {.whole = 2, .evaluation = 5}, true);
  EXPECT_DOUBLE_EQ(book[Spent::restart], 3);
  EXPECT_DOUBLE_EQ(book[Spent::productive], 7);
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

// Its lines stood at a time to come for as long, and status with them.
TEST_F(OperatorFiles, ABookThatAWrongClockKeptGoesOnFromNow) {
  const RunDirectory run{folder};
  for (const double ahead : {200.0, 3600.0}) {
    Goodput book(unix_seconds());
    book.pass(unix_seconds() + ahead, Spent::productive);
    nlohmann::json line;
    book.write_into(line);
    append_line(run.ledger(), line.dump());
    ASSERT_TRUE(read_goodput(run));
    EXPECT_NEAR(read_goodput(run)->total(), ahead, 1);
    EXPECT_NEAR(read_goodput(run)->time(), unix_seconds() + (ahead < 300 ? ahead : 0), 5);
  }
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

// Rounded to thousandths, a counter began an attempt below where Prometheus had last seen it: a reset, which counts it twice.
TEST_F(OperatorFiles, ABookThatIsReadAgainHasLostNothing) {
  const RunDirectory run{folder};
  Goodput book(0);
  book.pass(2.0004, Spent::restart);
  nlohmann::json line;
  book.write_into(line);
  append_line(run.ledger(), line.dump());
  ASSERT_TRUE(read_goodput(run));
  EXPECT_EQ((*read_goodput(run))[Spent::restart], 2.0004);
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

TEST_F(OperatorFiles, AGrowingFileIsReadLineByLineAndOnce) {
  const auto file = folder / "metrics.jsonl";
  JsonTail tail(file);
  std::vector<std::int64_t> seen;
  const auto read = [&] {
    seen.clear();
    tail.read([&](const nlohmann::json& line) { seen.push_back(integer_in(line, "step").value_or(-1)); });
    return seen;
  };
  using Steps = std::vector<std::int64_t>;
  EXPECT_EQ(read(), Steps()) << "it is not there yet";
  append_line(file, R"({"step":1})");
  std::ofstream(file, std::ios::app) << R"({"step":2}x)" "\n" R"({"step":)";
  EXPECT_EQ(read(), Steps({1}));
  EXPECT_EQ(read(), Steps());
  std::ofstream(file, std::ios::app) << "3}\n[4]\n";
  EXPECT_EQ(read(), Steps({3}));
  std::ofstream(file, std::ios::app) << R"({"step":5,"words":")" << std::string(3 << 20, 'x') << "\"}\n{\"step\":6}\n{";
  EXPECT_EQ(read(), Steps({5, 6})) << "a line of several blocks";
  append_line(file, R"({"step":7})");
  EXPECT_EQ(read(), Steps({7})) << "after the half line of a crash";
  JsonTail later(file);
  later.pass_over_what_is_there();
  append_line(file, R"({"step":8})");
  EXPECT_EQ(read(), Steps({8}));
  later.read([&](const nlohmann::json& line) { EXPECT_EQ(integer_in(line, "step"), 8); });
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

// A copy of such a value, or its text, ended the program: run.json of 200,000 nested objects ended `smlp run`.
TEST_F(OperatorFiles, WhatIsNestedDeeperThanAnythingOfOursIsNoJson) {
  const auto nested = [](int depth) {
    std::string text;
    for (int i = 0; i < depth; ++i) text += "{\"a\":";
    return text + "1" + std::string(static_cast<std::size_t>(depth), '}');
  };
  const auto file = folder / "run.json";
  std::ofstream(file) << nested(200000);
  EXPECT_TRUE(read_json_file(file, 1 << 24).is_discarded());
  std::ofstream(file) << nested(50);
  EXPECT_EQ(read_json_file(file, 1 << 24).dump(), nested(50));
  const std::string quoted = "{\"a\":\"" + std::string(1000, '[') + "\\\"{{\"}";
  EXPECT_EQ(parse_json(quoted).dump(), quoted) << "brackets in a text are none";
  EXPECT_TRUE(parse_json(R"({"a":"]]]]","b":)" + std::string(101, '[') + std::string(101, ']') + "}").is_discarded());
  std::ofstream(file) << nested(200000) << "\n{\"step\":2}\n";
  int lines = 0;
  read_json_lines(file, [&](const nlohmann::json& line) { lines += integer_in(line, "step") == 2 ? 1 : 100; });
  EXPECT_EQ(lines, 1);
}

// The sentence once held all of it.
TEST_F(OperatorFiles, AValueInASentenceIsShort) {
  EXPECT_EQ(in_words(1.5), "1.5");
  EXPECT_EQ(in_words("a\nb"), R"("a\nb")");
  EXPECT_EQ(in_words({1, 2}), "[1,2]");
  EXPECT_EQ(in_words(nlohmann::json::parse("[1,[2]]")), "an array");
  EXPECT_EQ(in_words(nlohmann::json::parse(R"({"a":{}})")), "an object");
  std::string umlauts = "a";
  for (int i = 0; i < 30; ++i) umlauts += "ä";
  EXPECT_EQ(json_text(nlohmann::json(in_words(umlauts))).find("\ufffd"), std::string::npos) << "cut between two characters";
  EXPECT_TRUE(in_words(std::string(5000, 'x')).ends_with("x…"));
  EXPECT_LT(in_words(std::string(5000, 'x')).size(), 50u);
  try {
    ADD_FAILURE() << nlohmann::json::parse('"' + std::string(100000, 'x')).type_name();
  } catch (const nlohmann::json::exception& error) {
    EXPECT_LT(json_fault(error).size(), 250u);
  }
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

// A look ended after a thousand names of any kind: what a dump of many ranks had left hid the requests, and stayed.
TEST_F(OperatorFiles, PlacesOfTwoThousandRanksHideNoRequestAndGoWithTheirs) {
  const ControlFolder control(folder / "control");
  control.create();
  const auto dump = new_request(RequestKind::dump), save = new_request(RequestKind::save);
  const auto all_places = [&] {
    control.ask(dump);
    for (int rank = 0; rank < 2000; ++rank) control.put_place(dump.id, rank, {{"rank", rank}});
  };
  const auto files = [&] {
    return std::distance(std::filesystem::directory_iterator(folder / "control"), std::filesystem::directory_iterator());
  };
  all_places();
  control.ask(save);
  EXPECT_EQ(control.requests().size(), 2u);
  EXPECT_EQ(files(), 2002);
  control.clear(dump.id);
  EXPECT_EQ(files(), 1);
  all_places();
  const auto stop_after = new_request(RequestKind::stop_after, 40);
  control.ask(stop_after);
  EXPECT_EQ(control.discard().size(), 2u);
  EXPECT_EQ(files(), 1);
  EXPECT_TRUE(control.asked(stop_after.id)) << "it was noted, and holds";
}

// A look took the first thousand names, and what it refused stayed there: a thousand of them hid every request that came.
TEST_F(OperatorFiles, WhatIsRefusedHidesNoRequestHoweverManyThereAre) {
  const ControlFolder control(folder / "control");
  control.create();
  const auto junk = folder / "control/request-!.json";
  std::ofstream(junk) << "junk";
  for (int i = 0; i < 1000; ++i) {
    std::filesystem::create_hard_link(junk, folder / "control" / ("request-" + std::to_string(i) + ".json"));
  }
  const auto save = new_request(RequestKind::save);
  control.ask(save);
  std::vector<std::string> refused;
  const auto heard = control.requests(&refused);
  ASSERT_EQ(heard.size(), 1u);
  EXPECT_EQ(heard[0].id, save.id);
  EXPECT_EQ(refused.size(), 1000u);
}

TEST_F(OperatorFiles, AnswersThatComeWhenNobodyWaitsAnyMoreDoNotPileUp) {
  const ControlFolder control(folder / "control");
  control.create();
  const auto dump = new_request(RequestKind::dump), save = new_request(RequestKind::save);
  for (const auto& request : {dump, save}) {
    control.ask(request);
    EXPECT_TRUE(control.asked(request.id));
    control.clear(request.id);
    EXPECT_FALSE(control.asked(request.id));
  }
  control.put_place(dump.id, 3, {{"rank", 3}});
  control.answer({save.id, "done", 7, "the checkpoint of step 7 is published"});
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
