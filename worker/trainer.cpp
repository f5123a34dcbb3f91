#include "worker/trainer.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "core/files.h"
#include "core/job_file.h"
#include "worker/machine_limits.h"
#include "worker/plan_json.h"
#include "worker/replica_check.h"
#include "worker/restore.h"
#include "worker/routing_settings.h"
#include "worker/signals.h"

namespace smlp {

namespace {

enum Flag : std::size_t { stop_asked = Checkpointing::flag_count, save_asked, flag_count };

std::vector<TokenFile> open_all(const std::vector<std::string>& prefixes) {
  std::vector<TokenFile> files;
  for (const auto& prefix : prefixes) files.emplace_back(prefix);
  return files;
}

// For a dump: how many collectives each group has begun, and which was the last.
nlohmann::json place_in(const ProcessGrid& grid) {
  const auto one = [](const Communicator& group) {
    return nlohmann::json{{"number", group.calls()}, {"last", group.last_call()}};
  };
  return {{"collectives",
           {{"world", one(*grid.world)}, {"experts", one(*grid.experts)}, {"replicas", one(*grid.replicas)}}}};
}

// For the watchdog and the launcher. The group that is inside a call, or the world.
LoopPlace loop_place(const Engine& engine, const ProcessGrid& grid) {
  LoopPlace place;
  const std::pair<const Communicator*, const char*> groups[] = {
      {grid.world.get(), "world"}, {grid.experts.get(), "experts"}, {grid.replicas.get(), "replicas"}};
  auto shown = groups[0];
  for (const auto& group : groups) {
    place.collectives += group.first->calls();
    if (!place.inside && group.first->inside()) shown = group;
    place.inside = place.inside || group.first->inside();
  }
  place.call = fmt::format("{}:{}:{}", shown.second, shown.first->last_call(), shown.first->calls());
  std::replace(place.call.begin(), place.call.end(), ' ', '_');
  const int block = engine.at_block();
  place.block = block < 0 ? fmt::format("{}:backward", ~block) : fmt::format("{}:forward", block);
  return place;
}

double longest_collective(ProcessGrid& grid) {
  return std::max({grid.world->take_longest(), grid.experts->take_longest(), grid.replicas->take_longest()});
}

PassedOver read_passed_over(const RunDirectory& run, Communicator& world) {
  std::vector<std::byte> bytes;
  if (world.rank() == 0) {
    const auto mine = read_if_there(run.passed_over());
    const auto view = std::as_bytes(std::span(mine));
    bytes.assign(view.begin(), view.end());
  }
  world.broadcast_bytes(bytes, 0);
  const std::string text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  return text.empty() ? PassedOver() : PassedOver::parse(text, run.passed_over().string());
}

}  // namespace

Trainer::Trainer(const JobConfig& job, const TrainerOptions& options, std::unique_ptr<Engine> engine,
                 Heartbeat& heartbeat, Control& control)
    : job_(job), options_(options), engine_(std::move(engine)), heartbeat_(heartbeat), control_(control) {
  auto& world = *engine_->grid().world;
  const double peak = product_rate(engine_->backend(), value_type(job_));
  log_ = std::make_unique<RunLog>(options_.run, options_.attempt, job_, world, peak, useful_flops_per_token(job_));
  stream_ = std::make_unique<TokenStream>(StreamSettings{.prefixes = job_.data.train,
                                                         .weights = job_.data.weights,
                                                         .context = job_.model.context,
                                                         .seed = static_cast<std::uint64_t>(job_.seed)});
  loader_ = std::make_unique<BatchLoader>(*stream_, job_.model.context);
  valid_ = open_all(job_.data.valid);
  pieces_ = engine_->pieces(true);
  const WriterOptions writing{.root = options_.run.checkpoints(),
                              .rank = world.rank(),
                              .ranks = world.size(),
                              .attempt = options_.attempt,
                              .keep_last = static_cast<int>(job_.checkpoint.keep_last),
                              .keep_every = job_.checkpoint.keep_every,
                              .keep_best = job_.checkpoint.keep_best};
  checkpoints_ = std::make_unique<Checkpointing>(writing, [this](const SaveOutcome& outcome) {
    log_->saved(outcome);
    control_.saved(outcome);
    if (outcome.published) heartbeat_.saved(since_save_.seconds());
  });
  divergence_ = std::make_unique<Divergence>(job_, read_passed_over(options_.run, world));
  control_.add_place([this] { return place_in(engine_->grid()); });
  heartbeat_.on_ranks(world.size());
  heartbeat_.look_at([this] { return loop_place(*engine_, engine_->grid()); });
}

Trainer::~Trainer() {
  heartbeat_.look_at({});
  control_.add_place({});
}

RunState Trainer::run_state() const {
  RunState state;
  state.integers = {{"step", {step_}},
                    {"sequences", {sequences_}},
                    {"tokens", {divergence_->trained(sequences_) * job_.model.context}},
                    {"updates", {engine_->updates()}},
                    {"seed", {job_.seed}}};
  state.numbers = {{"best_validation_loss", {best_validation_}}};
  divergence_->put(state);
  if (validated_step_ == step_) state.numbers[RunState::validation_loss] = {validation_loss_};
  state.texts = {{"fingerprint", fingerprint(job_)}, {"job", identity_toml(job_)}};
  return state;
}

void Trainer::restore() {
  auto& world = *engine_->grid().world;
  const auto chosen = choose_checkpoint(
      options_.run.checkpoints(), options_.not_after, world,
      [this](const std::filesystem::path& path, const std::string& reason) {
        spdlog::warn("checkpoint {} is not used: {}", path.string(), reason);
        log_->event("checkpoint_rejected", 0, fmt::format("{}: {}", path.filename().string(), reason));
      },
      [this] { heartbeat_.beat(); });
  if (chosen) {
    load_checkpoint(*chosen, engine_->backend(), pieces_);
    check_tables(engine_->backend(), engine_->store(), job_, chosen->filename().string());
    const auto state = read_run_state(*chosen);
    step_ = saved_step_ = state.integer("step");
    sequences_ = state.integer("sequences");
    divergence_->restore(state);
    restored_ = true;
    engine_->set_updates(state.integer("updates"));
    engine_->weights_loaded(true);
    best_validation_ = state.numbers.at("best_validation_loss").at(0);
  } else if (options_.init_from) {
    load_checkpoint(*options_.init_from, engine_->backend(), engine_->pieces(false), {.weights_only = true});
    check_tables(engine_->backend(), engine_->store(), job_, options_.init_from->string());
    engine_->weights_loaded(false);
  }
  replicas_alike_ = step_;
  log_->resumed(step_, divergence_->trained(sequences_) * job_.model.context);
  log_->left_out(divergence_->counts());
  const auto from = chosen               ? fmt::format("from {}", chosen->filename().string())
                    : options_.init_from ? fmt::format("with the weights of {}", options_.init_from->string())
                                         : std::string("from the first step");
  spdlog::info("attempt {} starts {} on {} ranks", options_.attempt, from, world.size());
  auto facts = to_json(count_job(job_));
  log_->event("start", step_, from,
              {{"ranks", world.size()}, {"parameters", facts["parameters"]}, {"forward_macs", facts["forward_macs"]}});
}

ExitCode Trainer::run() {
  heartbeat_.enter(Section::start, 0);
  restore();
  if (step_ == 0) evaluate(0);
  since_save_ = {};
  while (!complete() && !stop_) {
    step();
    if (divergence_->ended()) return diverged();
  }
  return leave(complete());
}

ExitCode Trainer::diverged() {
  const bool root = engine_->grid().world->rank() == 0;
  if (root && !divergence_->passed_over().spikes.empty()) {
    write_durably(options_.run.passed_over(), divergence_->passed_over().text());
  }
  if (divergence_->verdict()) leave_verdict(*divergence_->verdict());
  log_->event("diverged", step_, divergence_->sentence());
  return ExitCode::diverged;
}

void Trainer::leave_verdict(const Verdict& verdict) {
  auto& world = *engine_->grid().world;
  if (world.rank() == 0) write_verdict(options_.run.verdict(options_.attempt), verdict);
  world.barrier();
}

bool Trainer::may_update(const StepResult& result, std::int64_t position) {
  using Action = Divergence::Action;
  const auto action = divergence_->judge(step_, position, result.loss, result.gradient_norm);
  if (action == Action::update) return true;
  const auto& sentence = divergence_->sentence();
  spdlog::warn("step {}: {}", step_, sentence);
  log_->left_out(divergence_->counts());
  if (action == Action::nonfinite) {
    log_->event("update_skipped", step_, sentence);
  } else {
    log_->event("spike", step_, sentence, {{"action", name_of(action)}, {"loss", result.loss}});
  }
  return false;
}

void Trainer::check_replicas() {
  const auto every = job_.cluster.replica_check_every;
  if (every == 0 || step_ % every != 0) return;
  const auto difference = compare_replicas(engine_->backend(), engine_->grid(), pieces_);
  if (difference.empty()) {
    replicas_alike_ = step_;
    return;
  }
  const auto sentence = fmt::format("after step {}, {}; all was alike at step {}", step_, difference, replicas_alike_);
  log_->event("replicas_differ", step_, sentence);
  leave_verdict({.stop = false, .budgeted = false, .not_after = replicas_alike_, .reason = sentence});
  throw Error(ExitCode::fault, sentence);
}

bool Trainer::save_due() const {
  const auto& plan = job_.checkpoint;
  // A step that came due while the last save was still being written is made up for at the next one.
  const auto intervals = [&](std::int64_t step) { return std::max<std::int64_t>(step, 0) / plan.every_steps; };
  if (plan.every_steps > 0 && intervals(step_) > intervals(saved_step_)) return true;
  return plan.every_seconds > 0 && since_save_.seconds() >= plan.every_seconds;
}

void Trainer::step() {
  Stopwatch watch;
  const auto begin = divergence_->data_of(sequences_), end = begin + job_.train.global_batch;
  const auto read = [&](std::int64_t position, std::int64_t count, std::int64_t next, const std::int32_t*& tokens,
                        const std::int32_t*& targets) {
    heartbeat_.enter(Section::data, step_);
    const auto& batch = loader_->take(position, count, next < end ? next : divergence_->data_of(end) + next - end);
    tokens = batch.tokens.data();
    targets = batch.targets.data();
    heartbeat_.enter(Section::step, step_);
  };
  std::array<double, flag_count> flags{};
  checkpoints_->fill(flags);
  flags[stop_asked] = control_.stop_asked(step_ + 1) || stop_requested() ? 1 : 0;
  ++step_;  // the step being taken; everything below counts it as done
  const bool root = engine_->grid().world->rank() == 0;
  flags[save_asked] = root && checkpoints_->idle() && (save_due() || control_.save_asked()) ? 1 : 0;
  StepLine line;
  heartbeat_.enter(Section::step, step_);
  line.result = engine_->train_step(step_, begin, read, flags, [this] { heartbeat_.beat(); },
                                    [&](const StepResult& result) { return may_update(result, begin); });
  check_replicas();
  watch.lap();
  sequences_ = end;
  stop_ = flags[stop_asked] > 0;

  checkpoints_->agree(flags);
  line.result.phases[Phase::checkpoint] += watch.lap();
  heartbeat_.step_done(longest_collective(engine_->grid()), restored_);
  double seconds = watch.seconds();
  const bool evaluation_due = job_.train.eval_every > 0 && step_ % job_.train.eval_every == 0;
  // Before the save: a checkpoint knows the loss of its own step.
  if (evaluation_due || complete()) line.evaluation = evaluate(step_);
  watch.lap();
  const bool best_asked = job_.checkpoint.keep_best && evaluation_due;
  if (best_asked) drain();
  if ((flags[save_asked] > 0 || best_asked) && checkpoints_->idle() && line.result.updated) save();
  const double stall = watch.lap();
  line.result.phases[Phase::checkpoint] += stall;
  seconds += stall;
  line.step = step_;
  line.sequences = divergence_->trained(sequences_);
  line.tokens = line.sequences * job_.model.context;
  line.step_tokens = job_.train.global_batch * job_.model.context;
  line.seconds = seconds;
  log_->step(line);
}

std::optional<Evaluation> Trainer::evaluate(std::int64_t step) {
  if (valid_.empty()) return std::nullopt;
  heartbeat_.enter(Section::evaluation, step);
  Evaluation sum;
  for (const auto& file : valid_) {
    sum.add(engine_->evaluate(file, job_.train.eval_sequences, [this] { heartbeat_.beat(); }, true));
  }
  validated_step_ = step;
  validation_loss_ = sum.loss();
  if (std::isfinite(sum.loss()) && (best_validation_ == 0 || sum.loss() < best_validation_)) best_validation_ = sum.loss();
  spdlog::info("step {}: validation loss {:.4f}, perplexity {:.2f}", step, sum.loss(), sum.perplexity());
  log_->evaluated(step, sum);
  return sum;
}

void Trainer::save() {
  heartbeat_.enter(Section::checkpoint, step_);
  checkpoints_->begin(engine_->backend(), pieces_, run_state());
  control_.save_begun();
  saved_step_ = step_;
  since_save_ = {};
  log_->save_stalled(checkpoints_->stall_seconds());
}

void Trainer::drain() {
  heartbeat_.enter(Section::checkpoint, step_);
  // Waiting for the disk is no progress: a disk that never answers is a hang too.
  checkpoints_->drain(*engine_->grid().world, [] {});
}

ExitCode Trainer::leave(bool complete) {
  drain();
  if (saved_step_ != step_ || checkpoints_->last_failed()) {
    save();
    drain();
  }
  if (checkpoints_->last_failed()) {
    throw Error(ExitCode::io_failed, fmt::format("the last checkpoint, of step {}, could not be written; "
                                                 "the one before it is the newest: see events.jsonl", step_));
  }
  control_.leaving(saved_step_);
  log_->event(complete ? "complete" : "stopped", step_, complete ? "all steps are done" : "asked to save and leave");
  return complete ? ExitCode::done : ExitCode::call_again;
}

}  // namespace smlp
