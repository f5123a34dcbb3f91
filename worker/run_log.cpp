#include "worker/run_log.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <filesystem>
#include <limits>
#include <map>

#include "core/clock.h"
#include "core/error.h"
#include "core/files.h"
#include "core/goodput.h"
#include "core/json_lines.h"
#include "core/json_text.h"
#include "core/quantities.h"
#include "core/version.h"
#include "metrics/exporter.h"
#include "metrics/gpu_meter.h"
#include "metrics/listen.h"
#include "metrics/registry.h"
#include "metrics/target_groups.h"
#include "worker/device.h"
#include "worker/line_writer.h"
#include "worker/own_cores.h"
#include "worker/texts.h"

namespace smlp {

namespace {

RunIdentity identity_of(int attempt, const JobConfig& job, int rank) {
  const bool sparse = job.model.sparse_blocks > 0;
  return {.rank = rank,
          .attempt = attempt,
          .version = version(),
          .device = device_name(gpu_of(job)),
          .isa = cpu_isa(),
          .blocks = job.model.dense_blocks + job.model.sparse_blocks,
          .experts = sparse ? job.model.experts : 0};
}

EvaluationReport report_of(const Evaluation& evaluation) {
  EvaluationReport report{.validation_loss = evaluation.loss(), .routing_agreement = evaluation.routing_agreement()};
  for (const auto& block : evaluation.agreement) {
    if (block.compared > 0) report.block_agreement[block.block] = block.share();
  }
  return report;
}

StepReport report_of(const StepLine& line, double flops_share, bool scales_loss) {
  StepReport report;
  report.step = line.step;
  report.tokens = line.step_tokens;
  report.loss = line.result.loss;
  report.learning_rate = line.result.learning_rate;
  report.gradient_norm = line.result.gradient_norm;
  report.seconds = line.seconds;
  report.tokens_per_second = static_cast<double>(line.step_tokens) / line.seconds;
  report.flops_share = flops_share;
  for (std::size_t i = 0; i < phase_count; ++i) {
    report.phase_seconds[phase_names[i]] = line.result.phases[static_cast<Phase>(i)];
  }
  for (const auto& load : line.result.blocks) {
    report.blocks.push_back({load.block, load.expert_tokens, load.dropped, load.rounds});
  }
  if (scales_loss) report.loss_scale = line.result.loss_scale;
  const auto& losses = line.result.router_losses;
  if (!line.result.blocks.empty()) report.auxiliary_loss = losses.added;
  if (losses.balance != 0) {
    report.balance_loss = losses.balance;
    report.z_loss = losses.z;
  }
  if (line.evaluation) report.evaluation = report_of(*line.evaluation);
  return report;
}

// The newest of the run that is not beyond the step from which it goes on: what came later is done again.
std::optional<EvaluationReport> last_evaluation(const RunDirectory& run, std::int64_t up_to_step, std::int64_t blocks) {
  std::optional<EvaluationReport> last;
  read_json_lines(run.events(), [&](const nlohmann::json& line) {
    if (text_in(line, "event") != "evaluation" || integer_in(line, "step").value_or(up_to_step + 1) > up_to_step) return;
    const auto loss = number_in(line, "validation_loss");
    if (!loss) return;
    last = EvaluationReport{.validation_loss = *loss, .routing_agreement = number_in(line, "routing_agreement")};
    const auto shares = line.find("routing_agreement_blocks");
    if (shares == line.end() || !shares->is_array()) return;
    for (const auto& one : *shares) {
      const auto block = integer_in(one, "block");
      const auto share = number_in(one, "share");
      if (block && share && *block >= 0 && *block < blocks) last->block_agreement[*block] = *share;
    }
  });
  return last;
}

// All tasks of an array have one job: their folders tell them apart. Other runs of one name have ids of their own.
std::map<std::string, std::string> run_labels(const RunDirectory& run, const JobConfig& job) {
  constexpr std::int64_t largest_file = 1 << 20;
  const auto task = task_number(run);
  std::map<std::string, std::string> labels = {{"run", task ? fmt::format("{}/task-{}", job.name, *task) : job.name}};
  const auto identity = read_json_file(run.identity(), largest_file);
  if (const auto id = identity.is_object() ? text_in(identity, "id") : ""; !id.empty()) labels["run_id"] = id;
  return labels;
}

// How often the run was started anew so far, by why the attempt before had ended.
std::map<std::string, std::int64_t> restarts_by_cause(const RunDirectory& run) {
  std::map<std::string, std::int64_t> counts;
  read_json_lines(run.attempts(), [&](const nlohmann::json& attempt) {
    if (integer_in(attempt, "exit_code").value_or(0) == 0) return;
    const auto cause = text_in(attempt, "cause");
    ++counts[cause.empty() ? "other" : cause];
  });
  return counts;
}

std::unique_ptr<GpuMeter> meter_of(const std::string& gpu) {
  if (gpu.empty()) return nullptr;
  std::string why_not;
  auto meter = GpuMeter::open(gpu, &why_not);
  if (!meter) spdlog::info("the GPU's memory, power and use are not among the metrics: {}", why_not);
  return meter;
}

// A job whose port is taken is refused before its first step. A run that has trained must not end for it.
Exporter serve(const std::string& listen, const RunMetrics& metrics, const std::string& gpu, bool has_trained) {
  if (!has_trained) return Exporter(listen, metrics, meter_of(gpu));
  try {
    return Exporter(listen, metrics, meter_of(gpu));
  } catch (const Error& error) {
    spdlog::warn("{}. This attempt takes any free port: see targets.json", error.what());
  }
  return Exporter(on_any_port(listen), metrics, meter_of(gpu));
}

}  // namespace

struct RunLog::Impl {
  // A line that can't be written is lost; the run is not.
  struct LossyFile {
    std::filesystem::path path;
    bool losing = false;

    void append(const std::string& line) {
      try {
        append_line(path, line);
        losing = false;
      } catch (const std::exception& error) {
        if (!losing) spdlog::warn("{}; lines are lost until it works again", error.what());
        losing = true;
      }
    }
  };

  Impl(const RunDirectory& run_directory, int attempt_number, const JobConfig& job, int my_rank, const std::string& gpu)
      : run(run_directory),
        attempt(attempt_number),
        rank(my_rank),
        blocks(job.model.dense_blocks + job.model.sparse_blocks),
        scales_loss(job.train.precision == "fp16"),
        metrics(identity_of(attempt_number, job, my_rank)),
        exporter(serve(listen_of_process(job.metrics.listen, local_rank().value_or(my_rank)), metrics, gpu,
                       std::filesystem::exists(run.metrics()))),
        events{run.events()},
        steps{run.metrics()} {
    if (rank == 0) step_lines.emplace([this](const std::string& line) { steps.append(line); });
  }

  RunDirectory run;
  int attempt, rank;
  int ranks = 1;
  std::int64_t blocks = 0;  // of the model
  bool scales_loss = false;
  double peak = 0, work = 0;
  RunMetrics metrics;
  Exporter exporter;
  std::int64_t saved_step = -1, local_step = -1;
  double saved_time = 0;
  Divergence::Counts left_out_before;  // this attempt
  std::string local_trouble;  // of the last local save
  std::optional<Goodput> goodput;  // rank 0: the run's, up to the last step
  bool first_step = true;          // of this attempt is still to come
  LossyFile events, steps;
  std::optional<LineWriter> step_lines;  // rank 0

  void show_goodput() {
    if (!goodput) return;
    for (std::size_t i = 0; i < spent_count; ++i) metrics.goodput(spent_names[i], (*goodput)[static_cast<Spent>(i)]);
  }
  void count(const StepLine& line) {
    const auto& phases = line.result.phases;
    goodput->step_done(unix_seconds(), line.step,
                       {.whole = line.seconds,
                        .data = phases[Phase::data],
                        .exchange = phases[Phase::exchange] + phases[Phase::reduce],
                        .checkpoint = phases[Phase::checkpoint],
                        .evaluation = line.evaluation_seconds},
                       first_step);
    first_step = false;
    show_goodput();
  }
};

RunLog::RunLog(const RunDirectory& run, int attempt, const JobConfig& job, Communicator& world, double peak,
               double work, const std::string& gpu)
    : impl_(std::make_unique<Impl>(run, attempt, job, world.rank(), gpu)) {
  impl_->ranks = world.size();
  impl_->peak = peak;
  impl_->work = work;
  for (const auto& [cause, count] : restarts_by_cause(run)) impl_->metrics.restarts(cause, count);
  if (world.rank() == 0) impl_->goodput = read_goodput(run).value_or(Goodput(unix_seconds()));
  impl_->show_goodput();
  const auto& address = impl_->exporter.address();
  spdlog::info("{}", address.empty() ? "metrics are not served: this smlp was built without prometheus-cpp"
                                     : fmt::format("metrics at http://{}/metrics", address));
  const auto all = gather_texts(world, address);
  if (world.rank() != 0) return;
  try {
    write_atomically(impl_->run.targets(), json_text(target_groups(all, run_labels(run, job)), 2) + "\n");
  } catch (const std::exception& error) {
    spdlog::warn("{}; Prometheus does not learn where the ranks of this attempt are", error.what());
  }
}

RunLog::~RunLog() = default;

void RunLog::event(const std::string& kind, std::int64_t step, const std::string& detail, const nlohmann::json& more) {
  nlohmann::json line = {{"time", utc_time()}, {"event", kind}, {"attempt", impl_->attempt}, {"step", step},
                         {"detail", detail}};
  line.update(more);
  if (impl_->rank == 0) impl_->events.append(json_text(line));
}

void RunLog::step(const StepLine& line) {
  const double done = static_cast<double>(line.step_tokens) / impl_->ranks * impl_->work / line.seconds;
  const auto report = report_of(line, done / impl_->peak, impl_->scales_loss);
  impl_->metrics.publish(report);
  impl_->metrics.checkpoint_stalled(line.result.phases[Phase::checkpoint]);
  if (impl_->rank != 0) return;
  impl_->count(line);
  auto json = impl_->metrics.to_json(report, unix_seconds());
  impl_->goodput->write_into(json);
  json["sequences"] = line.sequences;
  if (!report.blocks.empty()) {
    double worst = 0;
    for (const auto& block : report.blocks) worst = std::max(worst, expert_balance(block.expert_tokens));
    json["expert_balance"] = worst;
  }
  if (impl_->saved_step >= 0) {
    json["checkpoint_last_step"] = impl_->saved_step;
    json["checkpoint_last_timestamp_seconds"] = impl_->saved_time;
  }
  if (impl_->local_step >= 0) json["local_checkpoint_last_step"] = impl_->local_step;
  impl_->step_lines->add(json_text(json));
}

void RunLog::evaluated(std::int64_t step, const Evaluation& evaluation) {
  const auto report = report_of(evaluation);
  impl_->metrics.evaluated(report);
  auto words = fmt::format("validation loss {:.4f}, perplexity {}", evaluation.loss(), perplexity_text(evaluation.perplexity()));
  nlohmann::json facts = {{"validation_loss", evaluation.loss()},
                          {"perplexity", evaluation.perplexity()},
                          {"tokens", evaluation.tokens}};
  if (const auto share = report.routing_agreement) {
    words += fmt::format("; {:.1f} % of the tokens go where training would send them", 100 * *share);
    facts["routing_agreement"] = *share;
    for (const auto& [block, alike] : report.block_agreement) {
      facts["routing_agreement_blocks"].push_back({{"block", block}, {"share", alike}});
    }
  }
  event("evaluation", step, words, facts);
}

void RunLog::saved(const SaveOutcome& outcome) {
  const auto tier = name_of(outcome.tier);
  const auto& why = outcome.failure;
  if (outcome.published) {
    impl_->metrics.checkpoint_published(tier, outcome.step, outcome.seconds, outcome.bytes, unix_seconds());
  } else {
    impl_->metrics.checkpoint_failed(tier);
    spdlog::error("the {} checkpoint of step {} was not written, training goes on: {}", tier, outcome.step, why);
  }
  if (outcome.tier == Tier::local) return saved_locally(outcome);
  if (!outcome.published) return event("checkpoint_failed", outcome.step, why, {{"tier", tier}});
  impl_->saved_step = outcome.step;
  impl_->saved_time = unix_seconds();
  spdlog::info("checkpoint of step {} is published {:.2f} s after it was begun ({:.1f} MB by this rank)", outcome.step,
               outcome.seconds, static_cast<double>(outcome.bytes) / 1e6);
  event("checkpoint_published", outcome.step, checkpoint_name(outcome.step),
        {{"seconds", outcome.seconds}, {"bytes", outcome.bytes}});
  if (!outcome.note.empty()) untidy(outcome.step, outcome.note);
}

void RunLog::untidy(std::int64_t step, const std::string& sentence) {
  spdlog::warn("{}", sentence);
  event("checkpoint_untidy", step, sentence);
}

// They come every few steps: events.jsonl gets a line where they begin to fail, and where they work again.
void RunLog::saved_locally(const SaveOutcome& outcome) {
  if (!outcome.published && impl_->local_trouble.empty()) {
    event("checkpoint_failed", outcome.step, outcome.failure, {{"tier", "local"}});
  } else if (outcome.published && !impl_->local_trouble.empty()) {
    event("local_checkpoint", outcome.step, "saves on the nodes work again", {{"tier", "local"}});
  }
  impl_->local_trouble = outcome.failure;
  if (outcome.published) impl_->local_step = outcome.step;
}

void RunLog::save_interval(Tier tier, std::int64_t step, double seconds, const std::string& sentence) {
  impl_->metrics.checkpoint_interval(name_of(tier), seconds);
  spdlog::info("{}", sentence);
  event("checkpoint_interval", step, sentence, {{"tier", name_of(tier)}, {"seconds", seconds}});
}

double RunLog::seconds_up() const {
  return impl_->goodput ? impl_->goodput->total() - (*impl_->goodput)[Spent::waiting] : 0;
}

void RunLog::left_out(const Divergence::Counts& counts) {
  const auto& before = impl_->left_out_before;
  impl_->metrics.skipped_updates("nonfinite", counts.nonfinite - before.nonfinite);
  impl_->metrics.skipped_updates("overflow", counts.overflowed - before.overflowed);
  impl_->metrics.skipped_updates("spike", counts.skipped - before.skipped);
  impl_->metrics.spikes("skip", counts.skipped - before.skipped);
  impl_->metrics.spikes("rewind", counts.rewound);  // ends its attempt, and no checkpoint takes it back: the run's
}

void RunLog::resumed(std::int64_t step, std::int64_t tokens, const Divergence::Counts& counts) {
  impl_->metrics.resume(step, tokens);
  impl_->left_out_before = counts;
  left_out(counts);
  if (const auto last = impl_->rank == 0 ? last_evaluation(impl_->run, step, impl_->blocks) : std::nullopt) {
    impl_->metrics.evaluated(*last);
  }
}

void RunLog::found(const FoundSave& save) {
  const double time = save.saved_at.value_or(std::numeric_limits<double>::quiet_NaN());
  impl_->metrics.checkpoint_found(name_of(save.tier), save.step, time);
  if (save.tier == Tier::local) {
    impl_->local_step = save.step;
    return;
  }
  impl_->saved_step = save.step;
  impl_->saved_time = time;
}

}  // namespace smlp
