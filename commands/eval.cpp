#include <fmt/format.h>

#include <memory>

#include "checkpoint/saved_job.h"
#include "commands/commands.h"
#include "commands/usage.h"
#include "commands/with_checkpoint.h"
#include "core/error.h"
#include "data/token_file.h"
#include "data/token_file_info.h"
#include "data/tokenizer.h"
#include "launcher/mpi_launch.h"

namespace smlp {

namespace {

struct EvalOptions {
  std::string checkpoint, data;
  LaunchShape shape;
  bool json = false;
};

std::unique_ptr<Tokenizer> tokenizer_if_there(const std::string& name) {
  try {
    return open_tokenizer(name);
  } catch (const Error&) {
    return nullptr;  // it may have stayed where the model was trained
  }
}

// What every rank would trip over is said once, before any is started.
void check_data(const std::filesystem::path& checkpoint, const std::string& data) {
  const TokenFile file(data);
  if (file.tokens() < 2) {
    throw Error(ExitCode::configuration,
                fmt::format("{} holds {} tokens, and two are needed for a loss", data, file.tokens()));
  }
  const auto state = read_run_state(checkpoint);
  const auto job = saved_job(state, checkpoint).config;
  if (const auto tokenizer = tokenizer_if_there(job.data.tokenizer)) {
    expect_tokenizer(*tokenizer, job.data.tokenizer, state.text("tokenizer"), checkpoint.string());
    check_tokenizer(data, *tokenizer, job.data.tokenizer);
  }
  const auto notes = read_info(data);
  const auto trained_with = state.text("tokenizer");
  if (notes.fingerprint && !trained_with.empty() && *notes.fingerprint != trained_with) {
    throw Error(ExitCode::configuration,
                fmt::format("{} was prepared with another tokenizer ({}) than {} was trained with ({}): prepare the text again "
                            "with that one",
                            data, notes.tokenizer.value_or("not named"), checkpoint.string(), job.data.tokenizer));
  }
  if (notes.vocabulary && *notes.vocabulary <= job.model.vocabulary) return;
  if (const auto largest = file.largest_token(); largest >= job.model.vocabulary) {
    throw Error(ExitCode::configuration,
                fmt::format("{} holds token {}, but the model of {} knows {}: prepare the text with its tokenizer, {}", data,
                            largest, checkpoint.string(), job.model.vocabulary, job.data.tokenizer));
  }
}

int evaluate(const EvalOptions& options) {
  return with_checkpoint(options.checkpoint, [&](const std::filesystem::path& checkpoint) {
    check_data(checkpoint, options.data);
    std::vector<std::string> arguments = {"eval", "--checkpoint", checkpoint.string(), "--data", options.data};
    if (options.json) arguments.push_back("--json");
    return run_worker(arguments, options.shape);
  });
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
      ->check(whole_number_within(1, 1 << 20))
      ->type_name("N");
  command->add_flag("--json", options->json, "one JSON document");
  command->footer("Example:\n  smlp eval runs/demo --data demo/valid --json");
  command->callback([options, &exit_code] { exit_code = evaluate(*options); });
}

}  // namespace smlp
