#include "launcher/queue_look.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "core/clock.h"
#include "core/json_lines.h"

namespace smlp {

namespace {

constexpr double answer_seconds = 3, again_seconds = 10;
constexpr std::size_t most_asked = 8;  // the newest

bool is_to_come(JobState state) {
  constexpr std::array states = {JobState::pending, JobState::running, JobState::completing, JobState::preempted,
                                 JobState::requeued};
  return std::find(states.begin(), states.end(), state) != states.end();
}

std::string why_it_will_not_come(const std::string& job, const JobAnswer& answer, const RunDirectory& run) {
  if (answer.gone) return fmt::format("job {}, for which the run waited, is not in SLURM's queue any more; submit again", job);
  if (answer.state == JobState::cancelled) {
    return fmt::format("job {} was cancelled while the run waited for it; submit again", job);
  }
  const bool of_an_array = job.find('_') != std::string::npos;  // which writes beside its tasks' folders
  const auto logs = of_an_array ? RunDirectory{(run.root / "..").lexically_normal()}.logs() : run.logs();
  return fmt::format("job {} ended ({}) before smlp began in it; see {}, and submit again", job, name_of(answer.state),
                     (logs / fmt::format("slurm-{}.log", job)).string());
}

}  // namespace

std::vector<std::string> submitted_jobs(const RunDirectory& run) {
  std::vector<std::string> jobs;
  const auto read = [&](const RunDirectory& folder, const std::string& suffix) {
    read_json_lines(folder.events(), [&](const nlohmann::json& line) {
      const auto job = text_in(line, "job_id");
      if (text_in(line, "event") != "submitted" || job.empty()) return;
      std::erase(jobs, job + suffix);
      jobs.insert(jobs.begin(), job + suffix);
    });
  };
  if (const auto task = task_number(run)) read({run.root / ".."}, fmt::format("_{}", *task));
  read(run, "");
  return jobs;
}

void QueueLook::ask(const std::vector<std::string>& jobs) {
  if (monotonic_seconds() - asked_at_ < again_seconds) return;
  asked_at_ = monotonic_seconds();
  answers_.clear();
  const Controller controller({.seconds = answer_seconds, .tries = 1});
  for (const auto& job : jobs) {
    answers_[job] = controller.state_of_job(job);
    if (answers_[job].silent()) return;
  }
}

RunStatus QueueLook::status_of(const RunDirectory& run) {
  auto status = read_status(run);
  complete(run, status);
  return status;
}

void QueueLook::complete(const RunDirectory& run, RunStatus& status) {
  if (!status.queued) return;
  auto jobs = submitted_jobs(run);
  if (jobs.empty()) return;
  jobs.resize(std::min(jobs.size(), most_asked));
  if (Controller::present()) ask(jobs);
  for (const auto& job : jobs) {
    const auto& answer = answers_[job];
    if (is_to_come(answer.state)) status.job = {job, std::string(name_of(answer.state)), answer.reason};
  }
  if (std::any_of(jobs.begin(), jobs.end(), [&](const auto& job) { return answers_[job].silent(); })) {
    if (!status.job) status.job = {jobs.front(), std::string(name_of(JobState::unknown)), ""};
  } else if (!status.tasks.empty()) {
    status.state = state_of_tasks(status.tasks, status.job && status.job->state == name_of(JobState::pending));
  } else if (!status.job) {
    const auto& newest = answers_[jobs.front()];
    const bool failed = newest.state == JobState::failed || newest.state == JobState::timeout;
    status.state = failed ? "failed" : "stopped";
    status.words = why_it_will_not_come(jobs.front(), newest, run);
  }
}

}  // namespace smlp
