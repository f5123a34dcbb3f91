#include "launcher/drill_verdict.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "core/attempt_end.h"
#include "core/files.h"
#include "core/json_lines.h"

namespace smlp {

namespace {

struct Line {
  int attempt = 0;
  std::int64_t step = 0;
  std::string event, cause, words;
};

std::vector<Line> lines_of(const std::filesystem::path& file) {
  std::vector<Line> lines;
  read_json_lines(file, [&](const nlohmann::json& json) {
    const auto attempt = attempt_in(json);
    if (!attempt) return;
    const auto detail = text_in(json, "detail");
    lines.push_back({*attempt, integer_in(json, "step").value_or(0), text_in(json, "event"),
                     text_in(json, "cause"), detail.empty() ? text_in(json, "reason") : detail});
  });
  return lines;
}

std::string cause_of(FaultKind kind) {
  switch (kind) {
    case FaultKind::kill_launcher: return "launcher";
    case FaultKind::stop: return "hang";
    case FaultKind::nan: return "diverged";
    case FaultKind::bit_flip: return "fault";
    default: return "signal";
  }
}

bool poisons_numbers(FaultKind kind) { return kind == FaultKind::nan || kind == FaultKind::bit_flip; }
bool gives_up_checkpoints(FaultKind kind) { return poisons_numbers(kind) || kind == FaultKind::torn_checkpoint; }

class Judge {
 public:
  Judge(DrillRun& drill, const DrillSettings& settings, const DrillShape& shape)
      : drill_(drill), settings_(settings), shape_(shape), attempts_(lines_of(settings.run.attempts())),
        events_(lines_of(settings.run.events())), struck_(drill.faults) {
    if (drill.unfinished) struck_.push_back(*drill.unfinished);
  }

  std::vector<std::string> judge(const RunDirectory& undisturbed) {
    the_end();
    for (auto& one : drill_.faults) how_it_was_noticed(one);
    for (auto& one : drill_.faults) what_it_cost(one);
    ends_without_a_fault();
    rejected_checkpoints();
    where_attempts_went_on();
    losses(undisturbed);
    what_is_left();
    return std::move(problems_);
  }

 private:
  template <class... Arguments>
  void problem(fmt::format_string<Arguments...> words, Arguments&&... arguments) {
    problems_.push_back(fmt::format(words, std::forward<Arguments>(arguments)...));
  }
  static std::string title(const FaultResult& one) {
    return fmt::format("fault {} ({}, rank {}, step {})", one.fault.number, name_of(one.fault.kind), one.fault.rank,
                       one.strike.step);
  }

  void the_end() {
    if (!drill_.problem.empty()) problem("{}", drill_.problem);
    else if (drill_.exit_code != 0) problem("the run ended with {}, not with 0", drill_.exit_code);
  }

  void how_it_was_noticed(FaultResult& one) {
    const auto kind = one.fault.kind;
    if (kind == FaultKind::slow) {
      one.noticed = "nothing ended";
      return;
    }
    if (kind == FaultKind::full_disk) {
      for (const auto& line : events_) {
        const bool then = line.attempt == one.strike.attempt && line.step + shape_.save_every >= one.strike.step;
        if (line.event == "checkpoint_failed" && then && one.noticed.empty()) {
          one.noticed = line.words;
        }
      }
      if (one.noticed.empty()) problem("{}: no event says that a checkpoint failed", title(one));
      return;
    }
    for (const auto& line : attempts_) {
      if (line.attempt != one.strike.attempt) continue;
      one.noticed = line.words;
      if (line.cause != cause_of(kind)) {
        problem("{}: attempt {} is recorded as ended by '{}' ({}), not by '{}'", title(one), line.attempt, line.cause,
                line.words, cause_of(kind));
      }
    }
    if (one.noticed.empty()) problem("{}: no record tells how attempt {} ended", title(one), one.strike.attempt);
    if (kind == FaultKind::torn_checkpoint && one.first == one.checkpoint + 1) {
      problem("{}: the run went on from the damaged checkpoint {}", title(one), one.checkpoint);
    }
  }

  // Steps that the slowest save of this run took until it was published.
  std::int64_t longest_save() const {
    std::int64_t longest = 0, known = 0;
    int attempt = 0;
    for (const auto& step : drill_.steps) {
      const bool fresh = step.attempt == attempt && step.checkpoint > known;
      if (fresh) longest = std::max(longest, step.step - step.checkpoint);
      attempt = step.attempt;
      known = step.checkpoint;
    }
    return longest;
  }

  void what_it_cost(FaultResult& one) {
    if (!restarts(one.fault.kind)) {
      if (one.lost > 0) problem("{}: {} steps were done again", title(one), one.lost);
      return;
    }
    // From one save to the next, which waits for the one under way, and as many until that is published.
    one.at_most = 2 * std::max(shape_.save_every, longest_save());
    if (one.fault.kind == FaultKind::torn_checkpoint) one.at_most += one.checkpoint - one.spare;
    if (one.fault.kind == FaultKind::nan) one.at_most += one.checkpoint - one.spare + nonfinite_in_row;
    if (one.lost > one.at_most) {
      problem("{}: {} steps are lost ({} to {}), at most {} may be", title(one), one.lost, one.first, one.last, one.at_most);
    }
  }

  void ends_without_a_fault() {
    std::set<int> explained;
    for (const auto& one : struck_) {
      if (restarts(one.fault.kind)) explained.insert(one.strike.attempt);
      if (one.ended_before) explained.insert(*one.ended_before);
    }
    for (const auto& line : attempts_) {
      if (line.cause != "done" && !explained.contains(line.attempt)) {
        problem("attempt {} ended without a fault: {}", line.attempt, line.words);
      }
    }
  }

  void rejected_checkpoints() {
    std::set<int> may;
    for (const auto& one : struck_) {
      if (gives_up_checkpoints(one.fault.kind)) may.insert(one.strike.attempt + 1);
    }
    for (const auto& line : events_) {
      if (line.event == "checkpoint_rejected" && !may.contains(line.attempt)) {
        problem("attempt {} rejected a checkpoint: {}", line.attempt, line.words);
      }
    }
  }

  void where_attempts_went_on() {
    std::map<int, std::int64_t> starts;
    for (const auto& line : events_) {
      if (line.event == "start") starts[line.attempt] = line.step;
    }
    int attempt = 0;
    for (const auto& step : drill_.steps) {
      if (step.attempt == attempt) continue;
      attempt = step.attempt;
      const auto start = starts.find(attempt);
      if (start == starts.end()) problem("attempt {} does not say where it went on from", attempt);
      else if (step.step != start->second + 1) {
        problem("attempt {} went on from step {}, and did step {} first", attempt, start->second, step.step);
      }
    }
  }

  bool is_poisoned(const StepDone& step) const {
    return std::any_of(struck_.begin(), struck_.end(), [&](const FaultResult& one) {
      return poisons_numbers(one.fault.kind) && step.attempt == one.strike.attempt && step.step >= one.strike.step;
    });
  }

  void losses(const RunDirectory& undisturbed) {
    std::map<std::int64_t, double> right;
    RunFollower follower(undisturbed);
    follower.read();
    for (const auto& step : follower.steps()) right[step.step] = step.loss;
    std::int64_t wrong = 0;
    for (const auto& step : drill_.steps) {
      const auto found = right.find(step.step);
      if (is_poisoned(step) || (found != right.end() && found->second == step.loss)) continue;
      if (++wrong > 1) continue;
      problem("step {} of attempt {} has a loss of {}, without faults it is {}", step.step, step.attempt, step.loss,
              found == right.end() ? std::string("not known") : fmt::format("{}", found->second));
    }
    if (wrong > 1) problem("so have {} steps more", wrong - 1);
  }

  void what_is_left() {
    for (const auto& process : drill_.left) problem("a process was left: {}", process);
    for (const auto& entry : entries_of(settings_.run.checkpoints())) {
      const auto name = entry.filename().string();
      if (name.ends_with(".tmp") && drill_.problem.empty()) problem("{} was left in the folder of checkpoints", name);
    }
  }

  DrillRun& drill_;
  const DrillSettings& settings_;
  DrillShape shape_;
  std::vector<Line> attempts_, events_;
  // Those that the run came back from, and the last one, where it did not: what that did is the drill's own, too.
  std::vector<FaultResult> struck_;
  std::vector<std::string> problems_;
};

}  // namespace

std::vector<std::string> judge(DrillRun& drill, const DrillSettings& settings, const RunDirectory& undisturbed,
                               const DrillShape& shape) {
  return Judge(drill, settings, shape).judge(undisturbed);
}

}  // namespace smlp
