#include <memory>

#include "checkpoint/checkpoint.h"
#include "commands/commands.h"
#include "launcher/mpi_launch.h"

namespace smlp {

namespace {

struct EvalOptions {
  std::string checkpoint, data;
  LaunchShape shape;
  bool json = false;
};

int evaluate(const EvalOptions& options) {
  std::vector<std::string> arguments = {"eval", "--checkpoint", find_checkpoint(options.checkpoint).string(), "--data",
                                        options.data};
  if (options.json) arguments.push_back("--json");
  return run_worker(arguments, options.shape);
}

}  // namespace

void add_eval_command(CLI::App& app, int& exit_code) {
  const auto options = std::make_shared<EvalOptions>();
  auto* command = app.add_subcommand("eval", "loss, perplexity and bits a byte on a token file");
  command->add_option("RUN", options->checkpoint, "a run directory (its newest valid checkpoint) or a checkpoint")
      ->required()
      ->type_name("RUN|CHECKPOINT");
  command->add_option("--data", options->data, "prefix of a token file")->required()->type_name("PREFIX");
  command->add_option("--ranks", options->shape.ranks, "processes that share the work")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 20).description(""))
      ->type_name("N");
  command->add_flag("--json", options->json, "one JSON document");
  command->footer("Example:\n  smlp eval runs/demo --data demo/valid --json");
  command->callback([options, &exit_code] { exit_code = evaluate(*options); });
}

}  // namespace smlp
