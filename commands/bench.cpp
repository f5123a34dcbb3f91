#include <fmt/format.h>

#include <algorithm>
#include <memory>

#include "commands/commands.h"
#include "commands/data_check.h"
#include "commands/job_options.h"
#include "core/error.h"
#include "core/job_keys.h"
#include "core/leftovers.h"
#include "launcher/mpi_launch.h"

namespace smlp {

namespace {

const std::vector<std::string> benches = {"step", "scaling", "kernels", "comm", "checkpoint", "routing"};

struct BenchOptions {
  std::string what;
  JobOptions job;
  bool json = false;
};

bool is_sparse(const std::string& what) { return what == "scaling" || what == "routing" || what == "checkpoint"; }
// Measured by one rank, whatever the job's number: each would tell of the same.
bool needs_one_rank(const std::string& what) { return what == "kernels" || what == "routing" || what == "checkpoint"; }
bool wants_company(const std::string& what) { return what == "scaling" || what == "comm"; }

// The sizes that the project's own figures are stated for.
std::string reference_job(const std::string& what) {
  return fmt::format(
      "name = \"bench\"\n[model]\n{}\ncontext = 512\nwidth = 512\nhidden = 2048\nvocabulary = 4096\n"
      "[train]\nmicro_batch = 4\n[cluster]\nranks = {}\n",
      is_sparse(what) ? "kind = \"smlp\"\ndense_blocks = 6\nsparse_blocks = 2\nexperts = 4"
                      : "kind = \"gmlp\"\ndense_blocks = 8",
      wants_company(what) ? 2 : 1);
}

LoadedJob bench_job(const BenchOptions& options) {
  if (!options.job.file.empty()) return load(options.job);
  auto job = parse_job(reference_job(options.what), "reference job of bench " + options.what, options.job.overrides);
  override_ranks(job, options.job.ranks);
  if (origin_of(job, "train.global_batch") == "default") {
    job.config.train.global_batch = job.config.cluster.ranks * job.config.train.micro_batch;
  }
  return job;
}

// What `bench checkpoint` writes is as large as a model's state: it goes also where a signal has ended the worker, and what
// one that was killed together with us has left goes before the next.
class SweptFolder {
 public:
  explicit SweptFolder(bool wanted) : wanted_(wanted) { sweep(); }
  ~SweptFolder() { sweep(); }
  SweptFolder(const SweptFolder&) = delete;
  SweptFolder& operator=(const SweptFolder&) = delete;

 private:
  void sweep() const {
    if (wanted_) sweep_leftovers(".", bench_folder_prefix);
  }
  bool wanted_;
};

int bench(const BenchOptions& options) {
  if (std::find(benches.begin(), benches.end(), options.what) == benches.end()) {
    const auto near = nearest_name(options.what, benches);
    throw Error(ExitCode::usage, fmt::format("there is no benchmark '{}'; {}there are {}", options.what,
                                             near.empty() ? "" : fmt::format("did you mean {}? ", near),
                                             listed(benches, "and")));
  }
  auto job = bench_job(options);
  check_and_resolve(job);
  resolve_vocabulary(job, false);
  const TemporaryJob file(job.config);
  std::vector<std::string> arguments = {"bench", options.what, "--job", file.path().string()};
  if (options.json) arguments.push_back("--json");
  const SweptFolder swept(options.what == "checkpoint");
  const auto ranks = needs_one_rank(options.what) ? 1 : job.config.cluster.ranks;
  return run_worker(arguments, {.ranks = ranks, .threads = job.config.cluster.threads});
}

}  // namespace

void add_bench_command(CLI::App& app, int& exit_code) {
  const auto options = std::make_shared<BenchOptions>();
  auto* command = app.add_subcommand("bench", "measures, always beside the machine's own limit");
  command->add_option("WHAT", options->what, "step, scaling, kernels, comm, checkpoint or routing")->required();
  command->add_option("--job", options->job.file, "sizes of this job, in place of the reference ones")->type_name("JOB.toml");
  add_override_options(*command, options->job);
  command->add_flag("--json", options->json, "one JSON document");
  command->footer(
      "The reference: H 512, F 2048, T 512, 8 blocks, V 4096, micro-batch 4, f32, one thread a rank; a gMLP on one rank,\n"
      "for scaling, routing and checkpoint an sMLP with 2 sparse blocks and 4 experts, for scaling and comm on two.\n"
      "A step is the job's: train.global_batch sequences, in micro-batches; of the reference, one a rank.\n\n"
      "Example:\n  smlp bench step --set train.precision=bf16 --json");
  command->callback([options, &exit_code] { exit_code = bench(*options); });
}

}  // namespace smlp
