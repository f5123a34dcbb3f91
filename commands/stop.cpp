#include <limits>
#include <memory>

#include "commands/commands.h"
#include "commands/live_run.h"
#include "commands/usage.h"
#include "core/clock.h"
#include "core/error.h"
#include "launcher/run_status.h"

namespace smlp {

namespace {

constexpr double leave_seconds = 10;  // for the launcher, once it has answered

struct StopOptions : AskOptions {
  bool now = false;
  std::int64_t after = 0;  // 0: at the next step
};

void stop(const StopOptions& options) {
  const auto run = live_run(options.run);
  const auto kind = options.now ? RequestKind::stop_now : options.after > 0 ? RequestKind::stop_after : RequestKind::stop;
  const auto answer = ask_and_wait(run, new_request(kind, options.after), options.timeout_seconds);
  // So that the next command may start the run again.
  for (const double end = monotonic_seconds() + leave_seconds;
       answer.outcome == "done" && is_live(run) && monotonic_seconds() < end && !interrupted();) {
    sleep_seconds(0.05);
  }
  print_answer(answer, options.json);
}

}  // namespace

void add_stop_command(CLI::App& app) {
  const auto options = std::make_shared<StopOptions>();
  auto* command = app.add_subcommand("stop", "has a live run save and leave; `smlp run` goes on from there");
  add_ask_options(*command, *options);
  auto* now = command->add_flag("--now", options->now, "at once, without saving; also when the ranks hang");
  command->add_option("--after", options->after, "when this step is done; returns when the run has taken note")
      ->check(whole_number_within(1, std::numeric_limits<std::int64_t>::max()))
      ->type_name("STEP")
      ->excludes(now);
  command->footer("The run ends with 75. This command ends with 0 when it has left, or knows when to; 75 when nobody answered.\n\n"
                  "Example:\n  smlp stop runs/demo --after 1000");
  command->callback([options] { stop(*options); });
}

}  // namespace smlp
