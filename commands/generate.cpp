#include <fmt/format.h>

#include <limits>
#include <memory>

#include "commands/commands.h"
#include "commands/usage.h"
#include "commands/with_checkpoint.h"
#include "launcher/mpi_launch.h"

namespace smlp {

namespace {

struct GenerateOptions {
  std::string checkpoint, prompt;
  std::int64_t tokens = 100, top_k = 0, seed = 1;
  double temperature = 1;
};

int generate_text(const GenerateOptions& options) {
  return with_checkpoint(options.checkpoint, [&](const std::filesystem::path& checkpoint) {
    std::vector<std::string> arguments = {"generate", "--checkpoint", checkpoint.string(),
                                          "--tokens", fmt::format("{}", options.tokens),
                                          "--temperature", fmt::format("{}", options.temperature),
                                          "--top-k", fmt::format("{}", options.top_k),
                                          "--seed", fmt::format("{}", options.seed), "--prompt"};
    // One word for a prompt that looks like an option; two for an empty one, which would take the next word for it.
    if (options.prompt.empty()) arguments.emplace_back();
    else arguments.back() += "=" + options.prompt;
    return run_worker(arguments, {});
  });
}

}  // namespace

void add_generate_command(CLI::App& app, int& exit_code) {
  const auto options = std::make_shared<GenerateOptions>();
  auto* command = app.add_subcommand("generate", "text from a trained model");
  command->add_option("RUN", options->checkpoint, "a run directory (its newest valid checkpoint) or a checkpoint")
      ->required()
      ->type_name("RUN|CHECKPOINT");
  command->add_option("--prompt", options->prompt, "how the text begins")->required()->type_name("TEXT");
  command->add_option("--tokens", options->tokens, "how many to add (100)")->check(whole_number_within(0, 1 << 30))->type_name("N");
  command->add_option("--temperature", options->temperature, "0: always the likeliest token (1)")
      ->check(number_within(0, 1e6))
      ->type_name("X");
  command->add_option("--top-k", options->top_k, "draw among the K likeliest alone; 0: all")
      ->check(whole_number_within(0, 1 << 30))
      ->type_name("K");
  command->add_option("--seed", options->seed, "another seed, another text (1)")
      ->check(whole_number_within(0, std::numeric_limits<std::int64_t>::max()))
      ->type_name("S");
  command->footer("Example:\n  smlp generate runs/demo --prompt \"int main(\" --tokens 60 --temperature 0.8");
  command->callback([options, &exit_code] { exit_code = generate_text(*options); });
}

}  // namespace smlp
