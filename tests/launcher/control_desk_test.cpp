// Requests as the launcher hears and answers them.
#include "launcher/control_desk.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <optional>
#include <string>
#include <tuple>

#include "core/json_lines.h"

namespace smlp {
namespace {

using testing::HasSubstr;

class Desk : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "smlp-desk-XXXXXX";
    run.root = mkdtemp(pattern.data());
  }
  void TearDown() override { std::filesystem::remove_all(run.root); }

  Request ask(RequestKind kind, std::int64_t step = 0) const {
    auto request = new_request(kind, step);
    ControlFolder(run.control()).ask(request);
    return request;
  }
  std::string outcome_of(const Request& request) const {
    const auto answer = ControlFolder(run.control()).answer_to(request.id);
    return answer ? answer->outcome : "";
  }

  RunDirectory run;
};

// One that was for a far step made a run that a time limit or a preemption had ended one that was not to be requeued.
TEST_F(Desk, AStopAfterAStepCountsOnceThatStepIsDone) {
  RunHistory history(run);
  ControlDesk desk(run, history);
  EXPECT_FALSE(desk.stop_after(1000)) << "nobody has asked";
  ask(RequestKind::stop_after, 500);
  desk.look_at_once();
  EXPECT_FALSE(desk.stop_after(std::nullopt));
  EXPECT_FALSE(desk.stop_after(499));
  EXPECT_TRUE(desk.stop_after(500));
  EXPECT_TRUE(desk.stop_after(501)) << "the step was past already";
  EXPECT_FALSE(desk.stop());
}

TEST_F(Desk, AnswersAStopByWhetherTheRanksSavedAndOneAtOnceInAnyCase) {
  RunHistory history(run);
  ControlDesk desk(run, history);
  for (const auto& [end, of_stop, of_stop_now] :
       {std::tuple(RunEnd::as_asked, "done", "done"), std::tuple(RunEnd::unsaved, "failed", "done"),
        std::tuple(RunEnd::by_itself, "ended", "ended")}) {
    const auto stop = ask(RequestKind::stop), stop_now = ask(RequestKind::stop_now), save = ask(RequestKind::save);
    desk.close(end, 3, "a sentence");
    EXPECT_EQ(outcome_of(stop), of_stop);
    EXPECT_EQ(outcome_of(stop_now), of_stop_now);
    EXPECT_EQ(outcome_of(save), "ended");
  }
}

// A job that was preempted and requeued forgot it, and ran on to its last step.
TEST_F(Desk, AStopAfterAStepHoldsWhereTheRunIsOnlyInterrupted) {
  RunHistory history(run);
  const auto asked = [&](const Request& request) { return ControlFolder(run.control()).asked(request.id); };
  ControlDesk before(run, history);
  const auto noted = ask(RequestKind::stop_after, 500), save = ask(RequestKind::save);
  before.close(RunEnd::interrupted, 3, "a sentence");
  EXPECT_EQ(outcome_of(save), "ended");
  ASSERT_TRUE(asked(noted));
  ControlDesk after(run, history);
  after.look_at_once();
  EXPECT_TRUE(after.stop_after(500));
  EXPECT_EQ(history.count_events("request_discarded"), 0);
  for (const auto end : {RunEnd::as_asked, RunEnd::unsaved, RunEnd::by_itself}) {
    const auto met = ask(RequestKind::stop_after, 500);
    after.close(end, 500, "a sentence");
    EXPECT_FALSE(asked(met) || asked(noted));
  }
}

// It was told as meant for an earlier start, though it may have been made while this one began.
TEST_F(Desk, SaysOfARequestFromBeforeThatItCouldNotBeHeard) {
  ControlFolder(run.control()).create();
  ask(RequestKind::stop);
  RunHistory history(run);
  const ControlDesk desk(run, history);
  std::string detail;
  read_json_lines(run.events(), [&](const nlohmann::json& line) {
    if (text_in(line, "event") == "request_discarded") detail = text_in(line, "detail");
  });
  EXPECT_THAT(detail, HasSubstr("it was made before this start could hear it"));
}

}  // namespace
}  // namespace smlp
