// What a rank hears of requests to its run.
#include "worker/control.h"

#include <gtest/gtest.h>
#include <pthread.h>
#include <stdlib.h>

#include <chrono>
#include <filesystem>
#include <thread>

namespace smlp {
namespace {

using namespace std::chrono_literals;

class ControlTest : public testing::Test {
 protected:
  ControlTest() {
    std::string pattern = testing::TempDir() + "smlp-control-XXXXXX";
    run_.root = mkdtemp(pattern.data());
    ControlFolder(run_.control()).create();
  }
  ~ControlTest() override { std::filesystem::remove_all(run_.root); }

  template <class Condition>
  static bool within_seconds(int seconds, const Condition& condition) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(seconds);
    while (!condition()) {
      if (std::chrono::steady_clock::now() > end) return false;
      std::this_thread::sleep_for(5ms);
    }
    return true;
  }

  RunDirectory run_;
};

// It remembered every id, ten thousand of them, and heard nothing more.
TEST_F(ControlTest, ARequestThatIsGoneIsForgotten) {
  const ControlFolder folder(run_.control());
  Control control(run_, 1, 0, pthread_self(), [] { return nlohmann::json::object(); });
  const auto heard = [&](const Request& request) {
    folder.ask(request);
    if (!within_seconds(20, [&] { return control.save_asked(); })) return false;
    control.save_begun();
    control.saved({.step = 7, .published = true});
    return within_seconds(20, [&] { return folder.answer_to(request.id).has_value() && !folder.asked(request.id); });
  };
  const auto first = new_request(RequestKind::save), second = new_request(RequestKind::save);
  ASSERT_TRUE(heard(first));
  ASSERT_TRUE(heard(second)) << "by a look at a folder without the first";
  EXPECT_TRUE(heard(first)) << "as if it were new";
}

// The request was known before it took effect, and the event that a full disk had no room for came in between.
TEST_F(ControlTest, ARequestHeardOnAFullDiskTakesEffect) {
  if (!std::filesystem::exists("/dev/full")) GTEST_SKIP() << "there is no /dev/full";
  std::filesystem::create_symlink("/dev/full", run_.events());
  const ControlFolder folder(run_.control());
  Control control(run_, 1, 0, pthread_self(), [] { return nlohmann::json::object(); });
  const auto save = new_request(RequestKind::save), stop_after = new_request(RequestKind::stop_after, 40);
  EXPECT_FALSE(control.stop_asked(1));
  for (const auto& request : {save, stop_after}) folder.ask(request);
  EXPECT_TRUE(within_seconds(20, [&] { return control.save_asked(); }));
  EXPECT_TRUE(within_seconds(20, [&] { return folder.answer_to(stop_after.id).has_value(); }));
  EXPECT_TRUE(control.stop_asked(40));
  const auto stop = new_request(RequestKind::stop);
  folder.ask(stop);
  EXPECT_TRUE(within_seconds(20, [&] { return control.stop_asked(1); }));
}

// "the run is at step 0, and stops after step 500", said a run that was about to go on from step 1,000.
TEST_F(ControlTest, AStopThatIsAskedForWhileTheRanksBeginIsAnsweredOnceTheyKnowTheirStep) {
  const ControlFolder folder(run_.control());
  Control control(run_, 1, 0, pthread_self(), [] { return nlohmann::json::object(); });
  const auto stop_after = new_request(RequestKind::stop_after, 500), save = new_request(RequestKind::save);
  for (const auto& request : {stop_after, save}) folder.ask(request);
  EXPECT_TRUE(within_seconds(20, [&] { return control.save_asked(); })) << "which is heard later in the same look";
  EXPECT_FALSE(folder.answer_to(stop_after.id));
  EXPECT_FALSE(control.stop_asked(1000));
  EXPECT_TRUE(within_seconds(20, [&] { return folder.answer_to(stop_after.id).has_value(); }));
  const auto answer = folder.answer_to(stop_after.id).value_or(Answer{});
  EXPECT_EQ(answer.step, 1001);
  EXPECT_EQ(answer.detail, "step 500 is past: the run is at step 1000, and stops after step 1001 is done");
}

// A build without HDF5 answered that the checkpoint was published, where nothing was saved.
TEST_F(ControlTest, ASaveThatIsOpenWhenRanksLeaveWithoutSavingHasFailed) {
  const ControlFolder folder(run_.control());
  Control control(run_, 1, 0, pthread_self(), [] { return nlohmann::json::object(); });
  const auto answer_to_one_as = [&](const std::function<void()>& leaving) {
    const auto save = new_request(RequestKind::save);
    folder.ask(save);
    EXPECT_TRUE(within_seconds(20, [&] { return control.save_asked(); }));
    leaving();
    EXPECT_TRUE(within_seconds(20, [&] { return folder.answer_to(save.id).has_value(); }));
    return folder.answer_to(save.id).value_or(Answer{});
  };
  const auto saved = answer_to_one_as([&] { control.leaving(7); });
  EXPECT_EQ(saved.outcome, "done");
  EXPECT_EQ(saved.detail, "the checkpoint of step 7 is published, and the ranks leave");
  const auto lost = answer_to_one_as([&] { control.leaving_without_a_save("this smlp was built without HDF5"); });
  EXPECT_EQ(lost.outcome, "failed");
  EXPECT_EQ(lost.detail, "nothing is saved, and the ranks leave: this smlp was built without HDF5");
}

// All answers of one look were given up when the first could not be written.
TEST_F(ControlTest, AnAnswerThatCannotBeWrittenWaitsAndKeepsNoOtherFromBeingGiven) {
  const ControlFolder folder(run_.control());
  Control control(run_, 1, 0, pthread_self(), [] { return nlohmann::json::object(); });
  const auto first = new_request(RequestKind::save), second = new_request(RequestKind::save);
  const auto in_the_way = run_.control() / ("answer-" + first.id + ".json");
  std::filesystem::create_directories(in_the_way / "x");
  for (const auto& request : {first, second}) {
    folder.ask(request);
    ASSERT_TRUE(within_seconds(20, [&] { return control.save_asked(); }));
    control.save_begun();
  }
  control.saved({.step = 7, .published = true});
  EXPECT_TRUE(within_seconds(20, [&] { return folder.answer_to(second.id).has_value(); }));
  std::filesystem::remove_all(in_the_way);
  EXPECT_TRUE(within_seconds(20, [&] { return folder.answer_to(first.id).has_value(); }));
}

}  // namespace
}  // namespace smlp
