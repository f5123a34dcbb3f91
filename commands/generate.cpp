#include <fmt/format.h>

#include <memory>

#include "checkpoint/checkpoint.h"
#include "commands/commands.h"
#include "launcher/mpi_launch.h"

namespace smlp {

namespace {

struct GenerateOptions {
  std::string checkpoint, prompt;
  std::int64_t tokens = 100, top_k = 0, seed = 1;
  double temperature = 1;
};

int generate_text(const GenerateOptions& options) {
  return run_worker({"generate", "--checkpoint", find_checkpoint(options.checkpoint).string(),
                     "--prompt=" + options.prompt, "--tokens", fmt::format("{}", options.tokens), "--temperature",
                     fmt::format("{}", options.temperature), "--top-k", fmt::format("{}", options.top_k), "--seed",
                     fmt::format("{}", options.seed)},
                    {});
}

}  // namespace

void add_generate_command(CLI::App& app, int& exit_code) {
  const auto options = std::make_shared<GenerateOptions>();
  auto* command = app.add_subcommand("generate", "text from a trained model");
  command->add_option("RUN", options->checkpoint, "a run directory (its newest valid checkpoint) or a checkpoint")
      ->required()
      ->type_name("RUN|CHECKPOINT");
  command->add_option("--prompt", options->prompt, "how the text begins")->required()->type_name("TEXT");
  command->add_option("--tokens", options->tokens, "how many to add (100)")->check(CLI::Validator(CLI::NonNegativeNumber).description(""))->type_name("N");
  command->add_option("--temperature", options->temperature, "0: always the likeliest token (1)")
      ->check(CLI::Validator(CLI::NonNegativeNumber).description(""))
      ->type_name("X");
  command->add_option("--top-k", options->top_k, "draw among the K likeliest alone; 0: all")
      ->check(CLI::Validator(CLI::NonNegativeNumber).description(""))
      ->type_name("K");
  command->add_option("--seed", options->seed, "another seed, another text (1)")->check(CLI::Validator(CLI::NonNegativeNumber).description(""))->type_name("S");
  command->footer("Example:\n  smlp generate runs/demo --prompt \"int main(\" --tokens 60 --temperature 0.8");
  command->callback([options, &exit_code] { exit_code = generate_text(*options); });
}

}  // namespace smlp
