#include "launcher/drill.h"

#include <fmt/format.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <utility>

#include "core/clock.h"
#include "core/files.h"
#include "core/numbers.h"
#include "core/process.h"
#include "core/program.h"
#include "launcher/fault_strike.h"
#include "launcher/processes.h"

namespace smlp {

namespace {

constexpr double poll_seconds = 0.002;

bool struck(const FaultResult& result) { return result.strike.attempt > 0 || result.ended_before.has_value(); }

}  // namespace

struct Drill::GivenUp {
  std::string sentence;
};

Drill::Drill(DrillSettings settings)
    : settings_(std::move(settings)), folder_(settings_.run), follower_(settings_.run) {}

DrillRun Drill::run() {
  adopt_orphans();  // whatever loses its parent is seen
  folder_.begin(settings_.faults);
  DrillRun result;
  FaultResult under_way;
  try {
    start();
    const double began = monotonic_seconds();
    wait_until([&] { return follower_.beat(0).has_value(); }, "the ranks start");
    const double alive = monotonic_seconds();
    wait_until([&] { return follower_.furthest() > 0; }, "the first step is done");
    start_seconds_ = std::min(monotonic_seconds() - alive, monotonic_seconds() - began);
    for (const auto& fault : settings_.faults) {
      folder_.open_turn(fault.number);
      under_way = {.fault = fault};
      one(under_way);
      result.faults.push_back(std::exchange(under_way, {}));
      if (settings_.told) settings_.told(result.faults.back());
    }
    wait_until([&] { return exit_code_.has_value(); }, "the run is done");
  } catch (const GivenUp& given_up) {
    result.problem = given_up.sentence;
    if (struck(under_way)) result.unfinished = under_way;
  }
  finish(result);
  return result;
}

void Drill::start() {
  ProcessStart start{.command = settings_.command, .output = settings_.output};
  const std::string ours = std::string(DrillFolder::variable) + "=";
  start.environment = own_environment();
  std::erase_if(start.environment, [&](const std::string& variable) { return variable.starts_with(ours); });
  start.environment.push_back(ours + folder_.path().string());
  launcher_ = start_process(start);
}

bool Drill::attend() {
  follower_.read();
  int status = 0;
  for (pid_t ended = waitpid(-1, &status, WNOHANG); ended > 0; ended = waitpid(-1, &status, WNOHANG)) {
    if (ended != launcher_) continue;
    launcher_ = 0;
    if (killed_launcher_ && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) {
      killed_launcher_ = false;
      start();
    } else {
      exit_code_ = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
      follower_.read();
    }
  }
  if (follower_.furthest() > seen_ && !about_to_strike_) folder_.see(seen_ = follower_.furthest());
  return !exit_code_.has_value();
}

void Drill::wait_until(const std::function<bool()>& condition, const std::string& what) {
  const double end = monotonic_seconds() + settings_.patience_seconds;
  while (true) {
    const bool live = attend();
    if (condition()) return;
    if (!live) {
      throw GivenUp{fmt::format("the run ended with {} before {}{}", *exit_code_, what,
                                *exit_code_ == 0 ? ": it is too short for these faults, give it more train.steps" : "")};
    }
    if (monotonic_seconds() > end) {
      throw GivenUp{fmt::format("{:.0f} s were not enough until {}", settings_.patience_seconds, what)};
    }
    sleep_seconds(poll_seconds);
  }
}

void Drill::pause(double seconds) {
  for (const double end = monotonic_seconds() + seconds; monotonic_seconds() < end && attend();) {
    sleep_seconds(std::min(poll_seconds, std::max(0.0, end - monotonic_seconds())));
  }
}

void Drill::one(FaultResult& result) {
  const auto& fault = result.fault;
  if (by_rank(fault.kind)) {
    std::optional<Strike> strike;
    wait_until([&] { return (strike = folder_.struck(fault.number)).has_value(); },
               fmt::format("fault {} ({}) struck", fault.number, name_of(fault.kind)));
    result.strike = *strike;
    note_checkpoints(result);
  } else {
    await_moment(result);
    about_to_strike_ = true;
    pause(result.fault.fraction * (result.fault.phase == FaultPhase::start ? start_seconds_ : follower_.step_seconds()));
    killed_launcher_ = fault.kind == FaultKind::kill_launcher;
    strike_from_outside(result, fault.kind);
    about_to_strike_ = false;
    note_checkpoints(result);
    folder_.strike(fault.number, result.strike);
  }
  follow_return(result, follower_, [&](const auto& condition, const auto& what) { wait_until(condition, what); });
}

// Those that there are now, or that there were when one of them was damaged: the run may have published one since.
void Drill::note_checkpoints(FaultResult& result) const {
  auto published = follower_.checkpoints();
  if (const auto damaged = result.strike.damaged; damaged > 0) {
    std::erase_if(published, [&](std::int64_t step) { return step > damaged; });
  }
  if (!published.empty()) result.checkpoint = published.back();
  if (published.size() > 1) result.spare = published[published.size() - 2];
}

void Drill::await_moment(FaultResult& result) {
  const auto& fault = result.fault;
  wait_until([&] { return follower_.furthest() >= fault.step; }, fmt::format("step {} is done", fault.step));
  if (fault.phase == FaultPhase::start) {
    strike_from_outside(result, FaultKind::kill);
    const int ended = std::exchange(result.strike, {}).attempt;
    result.ended_before = ended;
    wait_until(
        [&] {
          const auto beat = follower_.beat(fault.rank);
          return beat && beat->attempt > ended;
        },
        "the ranks start again");
  } else if (fault.phase == FaultPhase::save) {
    await_save(result);
  }
}

// A save of a small model may be over between two looks. Where one after the other is, the fault strikes without.
void Drill::await_save(FaultResult& result) {
  const auto latest = result.fault.step + settings_.save_every;
  bool saving = false;
  wait_until([&] { return (saving = follower_.saving()) || follower_.furthest() >= latest; }, "a checkpoint is written");
  if (!saving) result.fault.phase = FaultPhase::step;
}

void Drill::strike_from_outside(FaultResult& result, FaultKind kind) {
  std::optional<Strike> strike_now;
  wait_until([&] { return (strike_now = strike(kind, result.fault.rank, follower_)).has_value(); },
             fmt::format("the target of a fault ({}) was there", name_of(kind)));
  result.strike = *strike_now;
}

void follow_return(FaultResult& result, const RunFollower& follower, const WaitUntil& wait_until) {
  const auto& strike = result.strike;
  const auto kind = result.fault.kind;
  const auto& steps = follower.steps();
  const bool restarted = restarts(kind);
  const auto after = [&](const StepDone& step) {
    return restarted ? step.attempt > strike.attempt : step.time > strike.time && step.step >= strike.step;
  };
  const auto first_after = [&] { return std::find_if(steps.begin(), steps.end(), after); };
  wait_until([&] { return first_after() != steps.end(); }, fmt::format("the run came back after {}", describe(kind)));
  const auto first = first_after();
  result.first = first->step;
  result.to_step = first->time - strike.time;
  std::int64_t before = 0, last = 0;  // of all attempts before, and of the last one that did a step
  for (auto step = steps.begin(); step != first; ++step) {
    before = std::max(before, step->step);
    last = step->step;
  }
  result.last = last;
  result.lost = std::max<std::int64_t>(0, last - (result.first - 1));
  const auto is_new = [&](const StepDone& step) { return after(step) && step.step > before; };
  const auto first_new = [&] { return std::find_if(steps.begin(), steps.end(), is_new); };
  wait_until([&] { return first_new() != steps.end(); }, fmt::format("a step beyond {} was done", before));
  result.to_new_step = first_new()->time - strike.time;
  if (kind == FaultKind::slow) {
    wait_until([&] { return follower.furthest() >= strike.step + slow_steps; }, "the slow steps are over");
  }
  if (kind == FaultKind::full_disk) {
    const auto published_after = [&] {
      const auto published = follower.checkpoints();
      return !published.empty() && published.back() > strike.step;
    };
    wait_until(published_after, "a checkpoint was published again");
  }
}

void Drill::finish(DrillRun& result) {
  result.steps = follower_.steps();
  result.exit_code = exit_code_.value_or(-1);
  if (exit_code_) result.left = processes_of_run(settings_.run);
  if (launcher_ != 0) kill(launcher_, SIGKILL);  // mpirun and the ranks end with it
  const auto orphans = [] {
    while (waitpid(-1, nullptr, WNOHANG) > 0) {
    }
    return children_of(getpid());
  };
  auto children = orphans();
  if (exit_code_) {
    for (const auto child : children) result.left.push_back(fmt::format("{}: {}", child, command_line(child)));
  }
  for (const double end = monotonic_seconds() + 10; !children.empty() && monotonic_seconds() < end; children = orphans()) {
    for (const auto child : children) kill(child, SIGKILL);
    sleep_seconds(0.01);
  }
}

std::vector<std::string> processes_of_run(const RunDirectory& run) {
  std::vector<std::string> found;
  for (const auto& entry : entries_of("/proc")) {
    const auto number = parse_whole_number(entry.filename().native());
    if (!number) continue;
    const auto pid = static_cast<pid_t>(*number);
    if (pid == getpid() || !is_of_run(pid, run.root) || !is_alive(pid)) continue;
    found.push_back(fmt::format("{}: {}", pid, command_line(pid)));
  }
  return found;
}

}  // namespace smlp
