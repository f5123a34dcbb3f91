#include "launcher/run_status.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <deque>
#include <map>
#include <nlohmann/json.hpp>
#include <string_view>

#include "core/clock.h"
#include "core/files.h"
#include "core/job_file.h"
#include "core/json_lines.h"
#include "core/lock_holder.h"
#include "core/numbers.h"
#include "launcher/heartbeat_watch.h"
#include "launcher/run_history.h"
#include "launcher/targets.h"

namespace smlp {

namespace {

constexpr std::int64_t small_file = 1 << 20;
constexpr double sign_of_life_seconds = 30, pulse_seconds = 0.6, silent_seconds = 3;
constexpr std::size_t recent_steps = 20;
constexpr int most_ranks = 100000;
constexpr std::string_view heartbeat_prefix = "rank-";

// Seconds since a file was written; nullopt when it is not there.
std::optional<double> age_of(const std::filesystem::path& file) {
  const auto written = written_at(file);
  return written ? std::optional(std::max(0.0, unix_seconds() - *written)) : std::nullopt;
}

// Asks for the lock and gives it back: only where its holder seems to be gone does it ever get it.
bool is_locked(const std::filesystem::path& file) {
  const int descriptor = ::open(file.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  if (descriptor < 0) return false;
  const bool locked = ::flock(descriptor, LOCK_SH | LOCK_NB) != 0;
  ::close(descriptor);
  return locked;
}

// What events.jsonl says of the run's course.
struct Course {
  bool begun = false, submitted = false, requeued = false, attempt_under_way = false, stop_asked = false;
  bool closed = false;  // its launcher is gone by what was said
  std::string ending, words;  // event that closed the run since its last start
  std::map<int, AttemptEnd> seen;  // attempts by number
  std::optional<double> validation_loss;  // of the last evaluation, which may have no step's line
  bool queued() const { return submitted || requeued; }
};

Course read_course(const RunDirectory& run) {
  Course course;
  read_json_lines(run.events(), [&](const nlohmann::json& line) {
    const auto event = text_in(line, "event"), detail = text_in(line, "detail");
    const auto attempt = attempt_in(line).value_or(0);
    if (event == "submitted") {
      course.submitted = true;
    } else if (event == "requeued" || event == "launcher_lost") {
      course.requeued = course.closed = true;  // of a lost launcher too, unless the next line says otherwise
    } else if (event == "not_requeued") {
      course.requeued = false;
    } else if (event == "run_started") {
      course = {.begun = true, .ending = {}, .words = {}, .seen = std::move(course.seen),
                .validation_loss = course.validation_loss};
    } else if (event == "attempt_started") {
      course.begun = course.attempt_under_way = true;
      course.submitted = course.requeued = course.closed = false;
      course.ending.clear();
      course.seen.try_emplace(attempt, AttemptEnd{attempt, "", ""});
    } else if (event == "evaluation") {
      if (const auto loss = number_in(line, "validation_loss")) course.validation_loss = loss;
    } else if (event == "attempt_ended") {
      course.attempt_under_way = false;
    } else if (event == "signal" || (event == "request" && detail.starts_with("stop") && !detail.starts_with("stop after"))) {
      course.stop_asked = true;
    } else if (event == "done" || event == "failed" || event == "gave_up" || event == "stopped") {
      // Rank 0 says "stopped" too, when it leaves: the launcher is still there then.
      course.closed = !course.attempt_under_way;
      course.ending = event;
      course.words = detail;
    }
  });
  return course;
}

void read_steps(const RunDirectory& run, RunStatus& status) {
  std::deque<std::pair<std::int64_t, double>> recent;  // step, time: of the newest attempt
  int attempt = 0;
  double step_tokens = 0, tokens_per_second = 0;
  read_json_lines(run.metrics(), [&](const nlohmann::json& line) {
    const auto step = integer_in(line, "step");
    if (!step) return;
    const auto keep = [&](std::optional<double>& fact, const char* key) {
      if (const auto value = number_in(line, key)) fact = value;
    };
    status.step = step;
    status.loss = number_in(line, "loss");  // none where it was not finite
    keep(status.validation_loss, "validation_loss");
    keep(status.tokens_per_second, "tokens_per_second");
    keep(status.flops_share, "flops_share");
    keep(status.expert_balance, "expert_balance");
    if (const int its = attempt_in(line).value_or(0); its != attempt) {
      recent.clear();
      attempt = its;
    }
    if (const auto time = number_in(line, "time")) recent.emplace_back(*step, *time);
    if (recent.size() > recent_steps) recent.pop_front();
    step_tokens = number_in(line, "tokens").value_or(0);
    tokens_per_second = status.tokens_per_second.value_or(0);
  }, small_file);
  if (!status.step || !status.steps) return;
  const auto left = static_cast<double>(std::max<std::int64_t>(0, *status.steps - *status.step));
  if (recent.size() > 1 && recent.back().first > recent.front().first) {
    const auto steps = static_cast<double>(recent.back().first - recent.front().first);
    status.seconds_left = left * (recent.back().second - recent.front().second) / steps;
  } else if (tokens_per_second > 0 && step_tokens > 0) {
    status.seconds_left = left * step_tokens / tokens_per_second;
  }
}

// The marks were written at moments up to half a second apart: only what that can't explain is a rank behind.
std::optional<int> rank_behind(const RunStatus& status) {
  if (status.ranks.empty() || !status.step || !status.steps || !status.seconds_left) return std::nullopt;
  const auto by_progress = [](const auto& a, const auto& b) { return a.progress < b.progress; };
  const auto [least, most] = std::minmax_element(status.ranks.begin(), status.ranks.end(), by_progress);
  const auto left = static_cast<double>(std::max<std::int64_t>(1, *status.steps - *status.step));
  const double steps_a_second = left / std::max(*status.seconds_left, 1e-6);
  const double explained = steps_a_second * (pulse_seconds + std::max(0.0, least->seconds_ago - most->seconds_ago));
  const bool slow_steps = explained < 0.5 && least->progress < most->progress;
  const bool behind = static_cast<double>(most->step - least->step) > 1 + explained;
  const bool silent = least->progress < most->progress && least->seconds_ago > silent_seconds;
  return slow_steps || behind || silent ? std::optional(least->rank) : std::nullopt;
}

void read_attempts(const RunDirectory& run, const Course& course, RunStatus& status) {
  auto attempts = course.seen;
  read_json_lines(run.attempts(), [&](const nlohmann::json& line) {
    const auto number = attempt_in(line);
    if (!number) return;
    attempts[*number] = {*number, text_in(line, "cause"), text_in(line, "reason")};
  });
  status.attempts = static_cast<std::int64_t>(attempts.size());
  for (const auto& [number, end] : attempts) {
    const bool last = number == attempts.rbegin()->first;
    if (end.cause.empty() || end.cause == "done") continue;
    if (!last) ++status.restarts;
    status.ends.push_back(end);
  }
}

void read_checkpoint(const RunDirectory& run, RunStatus& status) {
  status.checkpoint_step = RunHistory(run).newest_step();
  if (!status.checkpoint_step) return;
  status.checkpoint_age = age_of(run.manifest(*status.checkpoint_step));
}

// What its state follows from.
struct Glance {
  bool live = false;
  Course course;
  std::vector<RankPlace> ranks;
  std::vector<Request> requests;
};

// A launcher holds the run, by its word and its lock; none: only the ranks' pulse can tell, for some shared file systems keep
// locks to the host that took them.
std::optional<bool> is_held(const RunDirectory& run) {
  const auto holder = last_holder(run.launcher_lock());
  if (!holder) return false;
  if (holder->here()) return holder->alive() && is_locked(run.launcher_lock());
  return is_locked(run.launcher_lock()) ? std::optional(true) : std::nullopt;
}

std::vector<int> ranks_with_heartbeat(const RunDirectory& run) {
  std::vector<int> ranks;
  for (const auto& entry : entries_of(run.heartbeats())) {
    const auto name = entry.filename().string();
    const auto number = parse_whole_number(std::string_view(name).substr(std::min(heartbeat_prefix.size(), name.size())));
    if (!number || *number >= most_ranks) continue;
    if (const auto rank = static_cast<int>(*number); run.heartbeat(rank).filename() == name) ranks.push_back(rank);
  }
  std::sort(ranks.begin(), ranks.end());
  return ranks;
}

// The pulse of the ranks outlives a run.
bool has_pulse(const std::vector<RankPlace>& ranks, const Course& course) {
  const auto lives = [](const auto& place) { return place.seconds_ago < sign_of_life_seconds; };
  return !course.closed && std::any_of(ranks.begin(), ranks.end(), lives);
}

Glance glance_at(const RunDirectory& run) {
  const auto held = is_held(run);
  Glance glance{.course = read_course(run), .ranks = read_places(run), .requests = {}};
  glance.live = held.value_or(has_pulse(glance.ranks, glance.course));
  if (glance.live) glance.requests = ControlFolder(run.control()).requests();
  return glance;
}

std::string state_of(const Glance& glance) {
  const auto& course = glance.course;
  const auto asked = [&](RequestKind kind) {
    return std::any_of(glance.requests.begin(), glance.requests.end(), [&](const auto& r) { return r.kind == kind; });
  };
  if (glance.live) {
    if (course.stop_asked || asked(RequestKind::stop) || asked(RequestKind::stop_now)) return "stopping";
    if (!course.attempt_under_way) return "waiting";
    const bool writing = std::any_of(glance.ranks.begin(), glance.ranks.end(),
                                     [](const auto& place) { return place.section == "checkpoint"; });
    return writing || asked(RequestKind::save) ? "saving" : "running";
  }
  if (course.queued()) return "waiting";
  if (course.ending == "done" || course.ending == "stopped") return course.ending;
  if (!course.ending.empty()) return "failed";
  return course.begun ? "dead" : "stopped";
}

std::vector<TaskState> read_tasks(const RunDirectory& run) {
  std::vector<TaskState> tasks;
  for (const auto& entry : entries_of(run.root)) {
    const RunDirectory task{entry};
    const auto number = task_number(task);
    if (number && is_run(task)) tasks.push_back({*number, state_of(glance_at(task))});
  }
  std::sort(tasks.begin(), tasks.end(), [](const auto& a, const auto& b) { return a.number < b.number; });
  return tasks;
}

void add_goodput(const RunDirectory& run, bool live, bool attempt_under_way, RunStatus& status) {
  status.goodput = read_goodput(run);
  if (!status.goodput || (!live && status.state != "waiting")) return;
  const bool training = attempt_under_way && std::any_of(status.ranks.begin(), status.ranks.end(),
                                    [](const auto& place) { return place.section != "start"; });
  status.goodput->pass(unix_seconds(), !live ? Spent::waiting : training ? Spent::productive : Spent::restart);
}

}  // namespace

bool is_run(const RunDirectory& run) {
  std::error_code ignored;
  return std::filesystem::exists(run.identity(), ignored) || std::filesystem::exists(run.events(), ignored);
}

void expect_run(const RunDirectory& run) {
  if (is_run(run)) return;
  throw Error(ExitCode::configuration, fmt::format("{} is no run directory: it holds neither run.json nor events.jsonl",
                                                   run.root.string()));
}

bool is_live(const RunDirectory& run) {
  const auto held = is_held(run);
  return held ? *held : has_pulse(read_places(run), read_course(run));
}

JobConfig job_of(const RunDirectory& run) {
  return parse_job(read_plain_file(run.job(), small_file).value(), run.job()).config;
}

std::vector<RankPlace> read_places(const RunDirectory& run) {
  std::vector<RankPlace> places;
  const int newest = newest_attempt(run);
  for (const int rank : ranks_with_heartbeat(run)) {
    const auto age = age_of(run.heartbeat(rank));
    const auto beat = parse_beat(read_plain_file(run.heartbeat(rank), small_file).value_or(""));
    if (!age || !beat || beat->attempt < newest) continue;
    places.push_back({rank, beat->step, beat->sequence, beat->section, beat->host, beat->pid, *age});
  }
  return places;
}

RunStatus read_status(const RunDirectory& run) {
  RunStatus status;
  status.name = std::filesystem::absolute(run.root).lexically_normal().filename().string();
  try {
    const auto job = job_of(run);
    status.name = job.name;
    status.steps = job.train.steps;
  } catch (const std::exception&) {
    // A job file that is absent or of another version: the rest can still be told.
  }
  const auto glance = glance_at(run);
  const auto& [live, course, ranks, requests] = glance;
  status.words = course.words;
  status.queued = course.queued() && !live;
  status.ranks = ranks;
  status.requests = requests;
  status.state = state_of(glance);
  if (!course.begun) status.tasks = read_tasks(run);
  if (!status.tasks.empty()) status.state = state_of_tasks(status.tasks, status.queued);
  read_steps(run, status);
  if (course.validation_loss) status.validation_loss = course.validation_loss;
  if (live) status.slowest = rank_behind(status);
  else status.seconds_left.reset();
  read_attempts(run, course, status);
  read_checkpoint(run, status);
  add_goodput(run, live, course.attempt_under_way, status);
  if (const auto holder = last_holder(run.launcher_lock())) status.holder = holder->words();
  if (live) status.metrics_address = first_target(run);
  const int newest = newest_attempt(run);
  status.logs = newest > 0 ? run.log_folder(newest) : run.logs();
  return status;
}

std::string state_of_tasks(const std::vector<TaskState>& tasks, bool more_wait) {
  constexpr std::array farthest_first = {"running", "saving", "stopping", "waiting", "dead", "failed", "stopped"};
  for (const std::string state : farthest_first) {
    const bool any = std::any_of(tasks.begin(), tasks.end(), [&](const auto& task) { return task.state == state; });
    if (any || (more_wait && state == "waiting")) return state;
  }
  return "done";
}

nlohmann::json to_json(const RunStatus& status) {
  nlohmann::json json = {{"name", status.name},
                         {"state", status.state},
                         {"detail", status.words},
                         {"step", or_null(status.step)},
                         {"steps", or_null(status.steps)},
                         {"loss", or_null(status.loss)},
                         {"validation_loss", or_null(status.validation_loss)},
                         {"tokens_per_second", or_null(status.tokens_per_second)},
                         {"flops_share", or_null(status.flops_share)},
                         {"expert_balance", or_null(status.expert_balance)},
                         {"seconds_left", or_null(status.seconds_left)},
                         {"attempts", status.attempts},
                         {"restarts", status.restarts},
                         {"slowest_rank", or_null(status.slowest)},
                         {"metrics", status.metrics_address},
                         {"logs", status.logs.string()}};
  json["checkpoint"] = {{"step", or_null(status.checkpoint_step)}, {"age_seconds", or_null(status.checkpoint_age)}};
  json["goodput"] = status.goodput ? status.goodput->seconds_json() : nlohmann::json();
  json["wall_seconds"] = status.goodput ? nlohmann::json(status.goodput->total()) : nlohmann::json();
  json["ends"] = nlohmann::json::array();
  for (const auto& end : status.ends) {
    json["ends"].push_back({{"attempt", end.attempt}, {"cause", end.cause}, {"reason", end.reason}});
  }
  json["ranks"] = nlohmann::json::array();
  for (const auto& place : status.ranks) {
    json["ranks"].push_back({{"rank", place.rank},
                             {"step", place.step},
                             {"section", place.section},
                             {"host", place.host},
                             {"pid", place.pid},
                             {"seconds_ago", place.seconds_ago}});
  }
  json["job"] = nullptr;
  if (status.job) json["job"] = {{"id", status.job->id}, {"state", status.job->state}, {"reason", status.job->reason}};
  json["tasks"] = nlohmann::json::array();
  for (const auto& task : status.tasks) json["tasks"].push_back({{"task", task.number}, {"state", task.state}});
  json["requests"] = nlohmann::json::array();
  for (const auto& request : status.requests) json["requests"].push_back(describe(request));
  return json;
}

}  // namespace smlp
