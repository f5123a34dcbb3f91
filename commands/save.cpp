#include <memory>

#include "commands/commands.h"
#include "commands/live_run.h"
#include "core/features.h"

namespace smlp {

void add_save_command(CLI::App& app) {
  const auto options = std::make_shared<AskOptions>();
  auto* command = app.add_subcommand("save", "has a live run save at its next step, and go on");
  add_ask_options(*command, *options);
  command->footer("Ends with 0 when the checkpoint is published, 74 when it could not be written, 75 when nobody answered.\n\n"
                  "Example:\n  smlp save runs/demo");
  command->callback([options] {
    need_checkpoints("`smlp save` has a run write");
    const auto run = live_run(options->run);
    print_answer(ask_and_wait(run, new_request(RequestKind::save), options->timeout_seconds), options->json);
  });
}

}  // namespace smlp
