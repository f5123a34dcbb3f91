#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "commands/commands.h"
#include "commands/live_run.h"
#include "commands/plain_text.h"
#include "core/clock.h"
#include "core/error.h"
#include "core/json_text.h"
#include "core/quantities.h"
#include "launcher/queue_look.h"
#include "launcher/run_status.h"

namespace smlp {

namespace {

constexpr std::size_t widest = 100, last_ends = 4, most_requests = 3;
constexpr std::size_t most_lines = 4, name_columns = 12;  // of a sentence that says why
constexpr double watch_seconds = 1;

std::string first_line(const RunStatus& s) {
  auto text = fmt::format("{}  {}", s.name, s.state);
  if (s.step) text += fmt::format("  step {}", *s.step);
  if (s.step && s.steps) text += fmt::format("/{}", *s.steps);
  if (s.seconds_left) text += fmt::format("  {} left", duration_text(*s.seconds_left));
  return text;
}

std::string numbers_line(const RunStatus& s) {
  std::string text;
  if (s.loss) text += fmt::format("  loss {:.4f}", *s.loss);
  if (s.validation_loss) text += fmt::format("  validation {:.4f}", *s.validation_loss);
  if (s.tokens_per_second) text += fmt::format("  {} tokens/s", count_text(*s.tokens_per_second));
  if (s.flops_share) text += fmt::format("  {:.0f} % of peak", 100 * *s.flops_share);
  if (s.expert_balance) text += fmt::format("  expert balance {:.2f}", *s.expert_balance);
  return text.empty() ? "no step yet" : text.substr(2);
}

std::string checkpoint_line(const RunStatus& s) {
  if (!s.checkpoint_step) return "checkpoint  none yet";
  return fmt::format("checkpoint  step {}{}", *s.checkpoint_step,
                     s.checkpoint_age ? fmt::format(", {} ago", duration_text(*s.checkpoint_age)) : "");
}

std::string ranks_line(const RunStatus& s) {
  if (s.ranks.empty()) return "ranks       none has started";
  const std::array present = {"running", "saving", "stopping"};
  const bool gone_silently = s.state == "dead";  // where they were is what is known of them
  if (!gone_silently && std::find(present.begin(), present.end(), s.state) == present.end()) {
    return fmt::format("ranks       {}, which have left", s.ranks.size());
  }
  const auto shown = std::find_if(s.ranks.begin(), s.ranks.end(), [&](const auto& p) { return p.rank == s.slowest; });
  if (shown == s.ranks.end()) {
    return fmt::format("ranks       {}, none is behind; rank {} is in section '{}'", s.ranks.size(), s.ranks[0].rank,
                       s.ranks[0].section);
  }
  return fmt::format("ranks       {}, slowest is {}: step {}, {}, process {} on {}", s.ranks.size(), shown->rank,
                     shown->step, shown->section, shown->pid, shown->host);
}

std::string goodput_line(const Goodput& book) {
  const double total = std::max(book.total(), 1e-9);
  auto text = fmt::format("goodput     {:.0f} % of {}:", 100 * book[Spent::productive] / total, duration_text(total));
  constexpr std::array short_names = {"productive", "restart", "saving", "data", "exchange", "lost", "waiting"};
  for (std::size_t i = 0; i < spent_count; ++i) {
    const double share = 100 * book[static_cast<Spent>(i)] / total;
    if (share >= 0.05) text += fmt::format(" {} {:.{}f} %", short_names[i], share, share < 9.95 ? 1 : 0);
  }
  return text;
}

std::string job_line(const BatchJob& job) {
  if (job.state == "unknown") return fmt::format("job         {}; SLURM does not say whether it waits still", job.id);
  const bool has_reason = !job.reason.empty() && job.reason != "None";
  return fmt::format("job         {} is {}{}", job.id, job.state, has_reason ? fmt::format(": {}", job.reason) : "");
}

std::string tasks_text(const RunStatus& s) {
  std::string text = "tasks       ";
  for (const auto& task : s.tasks) text += fmt::format("task-{}: {}, ", task.number, task.state);
  return text.substr(0, text.size() - 2);
}

using Lines = std::vector<std::string>;

void add_sentence(Lines& lines, const std::string& text, std::size_t indent) {
  for (auto& line : plain_lines(text, widest, most_lines, indent)) lines.push_back(std::move(line));
}

// What the folder of an array has none of.
void add_training(Lines& lines, const RunStatus& s) {
  lines.push_back(numbers_line(s));
  lines.push_back(checkpoint_line(s));
  lines.push_back(fmt::format("attempts    {}, restarts {}", s.attempts, s.restarts));
  const auto skipped = s.ends.size() > last_ends ? s.ends.size() - last_ends : 0;
  for (std::size_t i = skipped; i < s.ends.size(); ++i) {
    const auto line = fmt::format("{:{}}{} ended: {}", "", name_columns, s.ends[i].attempt, s.ends[i].reason);
    if (i + 1 == s.ends.size()) add_sentence(lines, line, name_columns);
    else lines.push_back(line);
  }
  lines.push_back(ranks_line(s));
  if (s.goodput) add_sentence(lines, goodput_line(*s.goodput), name_columns);
  for (std::size_t i = 0; i < std::min(s.requests.size(), most_requests); ++i) {
    lines.push_back("asked for   " + describe(s.requests[i]));
  }
  if (!s.metrics_address.empty()) lines.push_back(fmt::format("metrics     http://{}/metrics", s.metrics_address));
}

Lines screen(const RunStatus& s) {
  Lines lines = {first_line(s)};
  if (!s.words.empty() && s.state != "running") add_sentence(lines, s.words, 0);
  const bool is_array = !s.tasks.empty();
  if (s.state == "dead" && !is_array) {
    lines.push_back(fmt::format("its launcher ({}) is gone without a word; `smlp run` goes on", s.holder));
  }
  if (s.job) lines.push_back(job_line(*s.job));
  if (is_array) add_sentence(lines, tasks_text(s), name_columns);
  else add_training(lines, s);
  lines.push_back("logs        " + s.logs.string());
  std::transform(lines.begin(), lines.end(), lines.begin(), [](const auto& line) { return plain_line(line, widest); });
  return lines;
}

void print_once(const RunStatus& status, bool json, bool in_place) {
  if (json) {
    fmt::print("{}\n", json_text(to_json(status), in_place ? -1 : 2));
  } else {
    for (const auto& line : screen(status)) fmt::print("{}{}\n", line, in_place ? "\033[K" : "");
  }
  std::fflush(stdout);
}

bool over(const std::string& state) {
  return state == "done" || state == "failed" || state == "stopped" || state == "dead";
}

void watch(const RunDirectory& run, QueueLook& queue, bool json) {
  const bool terminal = !json && isatty(STDOUT_FILENO) == 1;
  for (bool first = true; !interrupted(); first = false) {
    const auto status = queue.status_of(run);
    if (terminal) fmt::print("{}", first ? "\033[2J\033[H" : "\033[H");
    else if (!first && !json) fmt::print("\n");
    print_once(status, json, terminal || json);
    if (terminal) fmt::print("\033[J");
    std::fflush(stdout);
    if (over(status.state) || std::ferror(stdout) != 0) return;
    for (double end = monotonic_seconds() + watch_seconds; !interrupted() && monotonic_seconds() < end;) sleep_seconds(0.1);
  }
}

}  // namespace

void add_status_command(CLI::App& app) {
  struct Options {
    std::string run;
    bool watch = false, json = false;
  };
  const auto options = std::make_shared<Options>();
  auto* command = app.add_subcommand("status", "how a run stands, alive or dead, on one screen");
  command->add_option("RUN", options->run, "a run directory")->required();
  command->add_flag("--watch", options->watch, "again every second, until the run ends");
  command->add_flag("--json", options->json, "one JSON document; with --watch, one a line");
  command->footer("States: waiting running saving stopping stopped done failed dead (docs/running.md).\n\n"
                  "Example:\n  smlp status runs/demo --watch");
  command->callback([options] {
    const RunDirectory run{options->run};
    expect_run(run);
    QueueLook queue;
    if (options->watch) watch(run, queue, options->json);
    else print_once(queue.status_of(run), options->json, false);
  });
}

}  // namespace smlp
