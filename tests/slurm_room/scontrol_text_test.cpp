// The texts are those of SLURM 22.05.8, taken from jobs while they got the signal in question.
#include "slurm/scontrol_text.h"

#include <fmt/format.h>
#include <gmock/gmock.h>

namespace smlp {
namespace {

using testing::HasSubstr;

struct Job {
  std::string state, run_time, limit, start, end, preempt;
  std::string reason = "None", name = "demo", id = "17";
};

std::string text(const Job& job) {
  auto all = fmt::format("JobId={} JobName={}\n   UserId=root(0) GroupId=root(0) MCS_label=N/A\n"
                         "   JobState={} Reason={} Dependency=(null)\n   Requeue=1 Restarts=0 BatchFlag=1\n"
                         "   RunTime={} TimeLimit={} TimeMin=N/A\n   StartTime={} EndTime={} Deadline=N/A\n",
                         job.id, job.name, job.state, job.reason, job.run_time, job.limit, job.start, job.end);
  if (!job.preempt.empty()) all += fmt::format("   PreemptEligibleTime={} PreemptTime={}\n", job.start, job.preempt);
  return all + "   Partition=batch\n   Comment=JobState=FAILED PreemptTime=x\n   Command=/x\n\n";
}

const Job running = {"RUNNING", "00:00:40", "00:05:00", "2026-11-23T09:00:00", "2026-11-23T09:05:00", "None"};

JobState own(const Job& job) { return read_job(text(job), "17", true).state; }

TEST(ScontrolJob, TellsScancelFromPreemptionFromTheTimeLimit) {
  EXPECT_EQ(own(running), JobState::running);

  auto cancelled = running;
  cancelled.state = "COMPLETING";
  cancelled.end = "2026-11-23T09:00:40";
  EXPECT_EQ(own(cancelled), JobState::cancelled);
  EXPECT_EQ(read_job(text(cancelled), "17", false).state, JobState::completing) << "it may have ended by itself";

  auto in_grace = running;
  in_grace.preempt = "2026-11-23T09:00:38";
  EXPECT_EQ(own(in_grace), JobState::preempted);

  auto over = cancelled;
  over.reason = "TimeLimit";
  over.run_time = "00:05:02";
  EXPECT_EQ(own(over), JobState::timeout);
  over.reason = "None";
  EXPECT_EQ(own(over), JobState::timeout);

  auto lost = cancelled;
  lost.reason = "NodeDown";
  EXPECT_EQ(own(lost), JobState::failed);
}

TEST(ScontrolJob, KnowsAJobThatWillStartAgain) {
  const Job preempted = {"COMPLETING", "00:00:00", "00:05:00", "Unknown", "Unknown", ""};
  EXPECT_EQ(own(preempted), JobState::requeued);
  const Job by_hand = {"COMPLETING", "00:00:00", "00:05:00", "2026-11-23T09:00:40", "2026-11-23T09:05:40", ""};
  EXPECT_EQ(own(by_hand), JobState::requeued);
  const Job long_limit = {"COMPLETING", "00:00:00", "2-00:00:00", "2026-11-23T09:00:40", "2026-11-25T09:00:40", ""};
  EXPECT_EQ(own(long_limit), JobState::requeued);
  const Job without_limit = {"COMPLETING", "00:00:00", "UNLIMITED", "Unknown", "Unknown", ""};
  EXPECT_EQ(own(without_limit), JobState::requeued);
  const Job cancelled_at_once = {"COMPLETING", "00:00:00", "00:05:00", "2026-11-23T09:00:40", "2026-11-23T09:00:40", "None"};
  EXPECT_EQ(own(cancelled_at_once), JobState::cancelled);
}

TEST(ScontrolJob, ReadsEveryStateThatStands) {
  const std::vector<std::pair<std::string, JobState>> states = {
      {"PENDING", JobState::pending},     {"SUSPENDED", JobState::running},  {"CANCELLED", JobState::cancelled},
      {"PREEMPTED", JobState::preempted}, {"TIMEOUT", JobState::timeout},    {"NODE_FAIL", JobState::failed},
      {"COMPLETED", JobState::completed}, {"REQUEUED", JobState::requeued},  {"OUT_OF_MEMORY", JobState::failed},
      {"SPRINTING", JobState::unknown},   {"", JobState::unknown}};
  for (const auto& [word, state] : states) {
    auto job = running;
    job.state = word;
    EXPECT_EQ(own(job), state) << word;
    EXPECT_FALSE(name_of(state).empty());
  }
}

TEST(ScontrolJob, FreeTextIsNoFact) {
  auto job = running;
  job.name = "x JobState=CANCELLED PreemptTime=now";
  EXPECT_EQ(own(job), JobState::running);
  EXPECT_EQ(read_job("", "17", true).state, JobState::unknown);
  EXPECT_EQ(read_job("No jobs in the system\n", "17", true).state, JobState::unknown);
}

TEST(ScontrolJob, AnArraysTasksAreToldApart) {
  auto first = running, last = running;
  first.id = "18 ArrayJobId=17 ArrayTaskId=0";
  first.state = "PENDING";
  last.id = "17 ArrayJobId=17 ArrayTaskId=1";
  EXPECT_EQ(read_job(text(first) + text(last), "17", true).state, JobState::running);
  EXPECT_EQ(read_job(text(first) + text(last), "18", true).state, JobState::pending);
  EXPECT_EQ(read_job(text(first), "17_0", true).state, JobState::pending) << "asked by its place in the array";
}

TEST(ScontrolNode, ReadsItsStates) {
  const std::vector<std::pair<std::string, NodeState>> states = {
      {"IDLE", NodeState::up},
      {"MIXED", NodeState::up},
      {"ALLOCATED+DRAIN", NodeState::up},
      {"MIXED+PLANNED", NodeState::up},
      {"IDLE+DRAIN", NodeState::drained},
      {"DOWN", NodeState::down},
      {"DOWN+DRAIN", NodeState::down},
      {"DOWN*", NodeState::down},
      {"IDLE+NOT_RESPONDING", NodeState::not_responding},
      {"ALLOCATED*", NodeState::not_responding},
      {"ALLOCATED*+DRAIN", NodeState::not_responding},
      {"UNKNOWN", NodeState::unknown},
      {"", NodeState::unknown}};
  for (const auto& [word, state] : states) {
    const auto nodes = read_nodes(fmt::format("NodeName=n1 Arch=x86_64 \n   OS=Linux\n   State={} ThreadsPerCore=1\n"
                                              "   Reason=State=IDLE; see me [root@x]\n\n", word));
    ASSERT_TRUE(nodes.contains("n1"));
    EXPECT_EQ(nodes.at("n1").state, state) << word;
    EXPECT_THAT(nodes.at("n1").words, HasSubstr("see me"));
  }
}

}  // namespace
}  // namespace smlp
