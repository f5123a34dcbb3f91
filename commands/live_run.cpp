#include "commands/live_run.h"

#include <fmt/format.h>

#include <csignal>
#include <nlohmann/json.hpp>

#include "commands/print_json.h"
#include "commands/usage.h"
#include "core/clock.h"
#include "core/error.h"
#include "core/files.h"
#include "launcher/queue_look.h"
#include "launcher/run_status.h"

namespace smlp {

namespace {

constexpr double poll_seconds = 0.05, alive_seconds = 0.5;
constexpr double least_patience = 0.01, most_patience = 1e9;

volatile std::sig_atomic_t interrupts = 0;

std::string what_to_do_instead(const RunStatus& status) {
  if (status.job) return fmt::format("; job {} is to begin it, `scancel {}` cancels that", status.job->id, status.job->id);
  return status.state == "dead" ? "; `smlp run` goes on" : "";
}

Error not_live(const RunDirectory& run) {
  const auto status = QueueLook().status_of(run);
  const auto folder = run.root.string();
  if (!status.tasks.empty()) {
    return {ExitCode::call_again, fmt::format("{} holds the runs of an array: name one of them, as {}/task-{}", folder, folder,
                                              status.tasks.front().number)};
  }
  const auto why = status.words.empty() ? std::string() : fmt::format(" ({})", status.words);
  return {ExitCode::call_again, fmt::format("{} is not live, it is {}{}: nobody is there to do it{}", folder, status.state,
                                            why, what_to_do_instead(status))};
}

Answer judge(const Answer& answer) {
  if (answer.outcome == "ended") throw Error(ExitCode::call_again, answer.detail);
  if (answer.outcome == "failed") throw Error(ExitCode::io_failed, answer.detail);
  return answer;
}

// A start throws away what was asked before it.
Error just_begun(const RunDirectory& run) {
  return {ExitCode::call_again, fmt::format("{} is only just beginning, and hears nothing yet: ask again", run.root.string())};
}

}  // namespace

bool interrupted() noexcept {
  static const bool installed = [] {
    struct sigaction action = {};
    action.sa_handler = [](int) { interrupts = 1; };
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, nullptr);
    return true;
  }();
  return installed && interrupts > 0;
}

void add_ask_options(CLI::App& command, AskOptions& options) {
  command.add_option("RUN", options.run, "a run directory")->required();
  command
      .add_option("--timeout", options.timeout_seconds,
                  fmt::format("wait so long for the answer, {:.0f} by default; then {}", options.timeout_seconds,
                              options.when_time_is_up))
      ->check(number_within(least_patience, most_patience))
      ->type_name("SECONDS");
  command.add_flag("--json", options.json, "one JSON document");
}

RunDirectory live_run(const std::string& folder) {
  const RunDirectory run{folder};
  expect_run(run);
  if (!is_live(run)) throw not_live(run);
  return run;
}

Answer ask_and_wait(const RunDirectory& run, const Request& request, double timeout_seconds) {
  const ControlFolder folder(run.control());
  interrupted();
  if (kind_of_path(run.control()) == PathKind::absent) throw just_begun(run);
  folder.ask(request);
  const double begin = monotonic_seconds();
  for (double looked = begin;;) {
    folder.open_anew();
    if (const auto answer = folder.answer_to(request.id)) {
      if (answer->outcome == "accepted") return *answer;  // the request still stands: it keeps its files
      folder.clear(request.id);
      return judge(*answer);
    }
    const double now = monotonic_seconds();
    if (now - looked > alive_seconds) {
      looked = now;
      // The answer may have come between the two looks: the launcher writes it before it goes.
      if (!is_live(run) && !folder.answer_to(request.id)) {
        folder.clear(request.id);
        throw not_live(run);
      }
      if (!folder.asked(request.id) && !folder.answer_to(request.id)) throw just_begun(run);
    }
    const bool late = now - begin > timeout_seconds;
    if (late || interrupted()) {
      throw Error(ExitCode::call_again,
                  fmt::format("{}; the request stays, and is met when the run gets to it: see `smlp status {}`",
                              late ? fmt::format("no answer within {:.0f} s", timeout_seconds) : "no longer waiting",
                              run.root.string()));
    }
    sleep_seconds(poll_seconds);
  }
}

void print_answer(const Answer& answer, bool json) {
  if (!json) {
    fmt::print("{}\n", answer.detail);
    return;
  }
  nlohmann::json document = {{"outcome", answer.outcome}, {"detail", answer.detail}, {"step", nullptr}};
  if (answer.step) document["step"] = *answer.step;
  print_json(document);
}

}  // namespace smlp
