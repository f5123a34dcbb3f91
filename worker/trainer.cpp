#include "worker/trainer.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "core/features.h"
#include "core/files.h"
#include "core/job_file.h"
#include "core/quantities.h"
#include "data/token_file_info.h"
#include "worker/machine_limits.h"
#include "worker/not_finite.h"
#include "worker/plan_json.h"
#include "worker/replica_check.h"
#include "worker/signals.h"
#include "worker/stopwatch.h"
#include "worker/texts.h"

namespace smlp {

namespace {

enum Flag : std::size_t { stop_asked = Saves::flag_count, save_asked, local_asked, flag_count };

std::vector<TokenFile> open_all(const std::vector<std::string>& prefixes) {
  std::vector<TokenFile> files;
  for (const auto& prefix : prefixes) files.emplace_back(prefix);
  return files;
}

void tell_attention(const Backend& backend) {
  if (const auto sentence = backend.attention_by(); !sentence.empty()) spdlog::info("{}", sentence);
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
  const auto text = broadcast_text(world, world.rank() == 0 ? read_unless_absent(run.passed_over()).value_or("") : "");
  return text.empty() ? PassedOver() : PassedOver::parse(text, run.passed_over().string());
}

std::string tokenizer_behind(const std::vector<std::string>& token_files) {
  return token_files.empty() ? "" : read_info(token_files.front()).fingerprint.value_or("");
}

}  // namespace

Trainer::Trainer(const JobConfig& job, const TrainerOptions& options, std::unique_ptr<Engine> engine,
                 Heartbeat& heartbeat, Control& control)
    : job_(job),
      options_(options),
      engine_(std::move(engine)),
      heartbeat_(heartbeat),
      control_(control),
      counts_(count_alone(job)),
      tokenizer_(tokenizer_behind(job.data.train)) {
  if (!built_with_hdf5()) job_.checkpoint = no_saves(job_.checkpoint);
  auto& world = *engine_->grid().world;
  const double peak = product_rate(engine_->backend(), value_type(job_), least_product_of_a_start);
  log_ = std::make_unique<RunLog>(options_.run, options_.attempt, job_, world, peak,
                                  useful_flops_per_token(counts_, job_.model.context),
                                  engine_->backend().device_id());
  stream_ = std::make_unique<TokenStream>(StreamSettings{.prefixes = job_.data.train,
                                                         .weights = job_.data.weights,
                                                         .context = job_.model.context,
                                                         .seed = static_cast<std::uint64_t>(job_.seed)});
  data_digest_ = broadcast_text(world, world.rank() == 0 ? stream_->sample_digest() : "");
  loader_ = std::make_unique<BatchLoader>(*stream_, job_.model.context);
  valid_ = open_all(job_.data.valid);
  pieces_ = engine_->pieces(true);
  drill_ = DrillFaults::of_environment(options_.run, options_.attempt, world.rank(), job_.checkpoint.every_steps);
  const WriterOptions writing{.root = options_.run.checkpoints(),
                              .rank = world.rank(),
                              .ranks = world.size(),
                              .attempt = options_.attempt,
                              .keep_last = static_cast<int>(job_.checkpoint.keep_last),
                              .keep_every = job_.checkpoint.keep_every,
                              .keep_best = job_.checkpoint.keep_best};
  saves_ = std::make_unique<Saves>(writing, [this](const SaveOutcome& outcome) { save_over(outcome); });
  plan_ = std::make_unique<SavePlan>(job_.checkpoint, options_.run);
  divergence_ = std::make_unique<Divergence>(job_, read_passed_over(options_.run, world));
  control_.set_place([this] { return place_in(engine_->grid()); });
  heartbeat_.on_ranks(world.size());
  heartbeat_.look_at([this] {
    auto place = loop_place(*engine_, engine_->grid());
    place.writing = saves_->own_writing();
    return place;
  });
}

Trainer::~Trainer() {
  heartbeat_.look_at({});
  control_.set_place({});
}

RunState Trainer::run_state() const {
  RunState state;
  state.integers = {{"step", {step_}},
                    {"sequences", {sequences_}},
                    {"tokens", {divergence_->trained(sequences_) * job_.model.context}},
                    {"updates", {engine_->updates()}},
                    {"seed", {job_.seed}},
                    {"data_tokens", stream_->tokens()}};
  const auto scale = engine_->loss_scale().state();
  state.integers["loss_scale_clean_steps"] = {scale.clean_steps};
  state.numbers = {{"best_validation_loss", {best_validation_}}, {"loss_scale", {scale.value}}};
  divergence_->put(state);
  if (validated_step_ == step_) state.numbers[RunState::validation_loss] = {validation_loss_};
  state.texts = {{"fingerprint", fingerprint(job_)}, {"job", identity_toml(job_)}, {"data_digest", data_digest_}};
  if (!tokenizer_.empty()) state.texts["tokenizer"] = tokenizer_;
  return state;
}

void Trainer::save_over(const SaveOutcome& outcome) {
  log_->saved(outcome);
  plan_->over(outcome.tier);
  choose_intervals();
  if (outcome.tier == Tier::local) return;
  control_.saved(outcome);
  if (outcome.published) heartbeat_.saved(outcome.seconds);
  if (outcome.superseded) throw Error(ExitCode::call_again, outcome.failure);  // it would train for nobody
}

void Trainer::choose_intervals() {
  if (engine_->grid().world->rank() != 0) return;
  plan_->choose(log_->seconds_up(), [this](Tier tier, double seconds, const std::string& sentence) {
    log_->save_interval(tier, step_, seconds, sentence);
  });
}

ExitCode Trainer::run() {
  heartbeat_.enter(Section::start, 0);
  restore();
  // An evaluation that was cut short is made up for.
  if (step_ == 0 || (evaluation_due() && !evaluated())) evaluate(step_);
  for (bool first = true; !complete() && !stop_; first = false) {
    step();
    if (first) tell_attention(engine_->backend());
    if (divergence_->ended()) return diverged();
  }
  return leave(complete() && evaluated());
}

ExitCode Trainer::diverged() {
  const bool root = engine_->grid().world->rank() == 0;
  if (root && !divergence_->passed_over().spikes.empty()) {
    write_durably(options_.run.passed_over(), divergence_->passed_over().text());
  }
  why_diverged_ = divergence_->sentence();
  if (divergence_->verdict()) {
    leave_verdict(*divergence_->verdict());
  } else {
    why_diverged_ = fmt::format(
        "the gradients of steps {} to {} are not finite, {}: the run goes back a checkpoint; if it comes to this again, lower "
        "optimizer.learning_rate, or look at the data and at the node",
        step_ - divergence_->nonfinite_steps() + 1, step_, name_not_finite(*engine_->grid().world, own_finite_));
  }
  saves_->drain_local(*engine_->grid().world);
  log_->event("diverged", step_, why_diverged_);
  return ExitCode::diverged;
}

void Trainer::leave_verdict(const Verdict& verdict) {
  auto& world = *engine_->grid().world;
  if (world.rank() == 0) write_verdict(options_.run.verdict(options_.attempt), verdict);
  world.barrier();
}

bool Trainer::may_update(const StepResult& result, std::int64_t position) {
  using Action = Divergence::Action;
  const auto action = result.overflowed ? divergence_->overflow(result.loss_scale)
                                        : divergence_->judge(step_, position, result.loss, result.gradient_norm);
  if (action == Action::update) return true;
  const auto& sentence = divergence_->sentence();
  spdlog::warn("step {}: {}", step_, sentence);
  log_->left_out(divergence_->counts());
  if (action == Action::nonfinite) {
    log_->event("update_skipped", step_, sentence, {{"reason", result.overflowed ? "overflow" : "nonfinite"}});
  } else {
    log_->event("spike", step_, sentence, {{"action", name_of(action)}, {"loss", result.loss}});
  }
  return false;
}

// Before each save too: else all checkpoints that are kept may be younger than the last comparison, and a flipped bit
// would cost the whole run.
void Trainer::check_replicas(bool before_a_save) {
  const auto every = job_.cluster.replica_check_every;
  if (every == 0 || replicas_alike_ == step_ || (step_ % every != 0 && !before_a_save)) return;
  const auto difference = compare_replicas(engine_->backend(), engine_->grid(), pieces_, [this] { progress(); });
  if (difference.empty()) {
    replicas_alike_ = step_;
    return;
  }
  const auto sentence = fmt::format("after step {}, {}; all was alike at step {}", step_, difference, replicas_alike_);
  log_->event("replicas_differ", step_, sentence);
  leave_verdict({.stop = false, .budgeted = false, .not_after = replicas_alike_, .reason = sentence});
  throw Error(ExitCode::fault, sentence);
}

bool Trainer::kept_for_good() const {
  return job_.checkpoint.keep_every > 0 && step_ % job_.checkpoint.keep_every == 0;
}

// The weights of the step before are good where this one overflowed its loss scale, or its spike was left out; where a loss
// or gradient is not finite they may be why, and where the attempt ends over it the run goes back.
bool Trainer::may_save(const StepResult& result) const {
  return result.updated || (divergence_->nonfinite_steps() == 0 && !divergence_->ended());
}

bool Trainer::evaluation_due() const {
  return complete() || (job_.train.eval_every > 0 && step_ % job_.train.eval_every == 0);
}

// This rank's part of what all agree on in the step being taken.
void Trainer::put_wishes(std::span<double> flags) {
  saves_->fill(flags);
  flags[stop_asked] = control_.stop_asked(step_) || stop_requested() ? 1 : 0;
  if (engine_->grid().world->rank() != 0) return;
  const bool asked = plan_->due(Tier::shared, step_) || (built_with_hdf5() && control_.save_asked());
  // A run loses no more than the interval that it was given: the save before is waited for. An interval of our own choice is
  // longer than saves take, and put off where one takes longer.
  flags[save_asked] = asked && (!job_.checkpoint.automatic || saves_->idle(Tier::shared)) ? 1 : 0;
  flags[local_asked] = saves_->idle(Tier::local) && plan_->due(Tier::local, step_) ? 1 : 0;
}

void Trainer::step() {
  if (drill_) drill_->stay_in_sight(step_ + 1, [this] { progress(); });
  Stopwatch watch;
  const auto begin = divergence_->data_of(sequences_), end = begin + job_.train.global_batch;
  const auto read = [&](std::int64_t position, std::int64_t count, std::int64_t next, const std::int32_t*& tokens,
                        const std::int32_t*& targets) {
    heartbeat_.enter(Section::data, step_);
    const auto& batch = loader_->take(position, count, next < end ? next : divergence_->data_of(end) + next - end);
    tokens = batch.tokens.data();
    targets = batch.targets.data();
    heartbeat_.enter(Section::step, step_);
    if (drill_) drill_->in_step(step_, engine_->backend(), engine_->store());
  };
  ++step_;  // the step being taken; everything below counts it as done
  std::array<double, flag_count> flags{};
  put_wishes(flags);
  StepLine line;
  heartbeat_.enter(Section::step, step_);
  engine_->watch_gradients(divergence_->nonfinite_steps() > 0);
  line.result = engine_->train_step(step_, begin, read, flags, [this] { progress(); },
                                    [&](const StepResult& result) { return may_update(result, begin); });
  own_finite_ = line.result.own_finite;
  if (drill_) drill_->after_update(step_, engine_->backend(), pieces_);
  watch.lap();
  check_replicas(flags[save_asked] > 0 || kept_for_good() || (job_.checkpoint.keep_best && evaluation_due()));
  line.result.phases[Phase::other] += watch.lap();
  sequences_ = end;
  stop_ = flags[stop_asked] > 0;

  plan_->step(watch.seconds());
  saves_->agree(flags, *engine_->grid().world);
  line.result.phases[Phase::checkpoint] += watch.lap();
  heartbeat_.step_done(longest_collective(engine_->grid()), restored_);
  double seconds = watch.seconds();
  // Before the save: a checkpoint knows the loss of its own step.
  if (evaluation_due()) line.evaluation = evaluate(step_);
  line.evaluation_seconds = watch.lap();
  const bool this_step =  // and no later one
      flags[save_asked] > 0 || kept_for_good() || (job_.checkpoint.keep_best && line.evaluation);
  if (this_step) drain();
  const Saves::Wish wish{.shared = this_step, .local = saves_->idle(Tier::local) && flags[local_asked] > 0};
  if (wish && may_save(line.result)) save(wish);
  const double stall = watch.lap();
  line.result.phases[Phase::checkpoint] += stall;
  seconds += stall;
  line.step = step_;
  line.sequences = divergence_->trained(sequences_);
  line.step_tokens = job_.train.global_batch * job_.model.context;
  line.seconds = seconds;
  log_->step(line);
}

// Agreed on by all ranks, and so after the same batch. A save that is under way goes on: what is written is published.
bool Trainer::asked_meanwhile() {
  std::array<double, flag_count> flags{};
  saves_->fill(flags);
  flags[stop_asked] = stop_requested() || control_.stop_asked(step_) ? 1 : 0;
  engine_->grid().world->all_reduce_host(flags, Reduce::sum);
  saves_->agree(flags, *engine_->grid().world);
  return flags[stop_asked] > 0;
}

std::optional<Evaluation> Trainer::evaluate(std::int64_t step) {
  if (!evaluates()) return std::nullopt;
  heartbeat_.enter(Section::evaluation, step);
  struct CutShort {};
  const auto between = [this] {
    progress();
    if (asked_meanwhile()) throw CutShort();
  };
  Evaluation sum;
  try {
    for (const auto& file : valid_) {
      sum.add(engine_->evaluate(file, job_.train.eval_sequences, between, true));
    }
  } catch (const CutShort&) {
    // It may take longer than the warning before a time limit.
    stop_ = true;
    log_->event("evaluation_cut_short", step, "asked to save and leave");
    return std::nullopt;
  }
  validated_step_ = step;
  validation_loss_ = sum.loss();
  if (std::isfinite(sum.loss()) && (best_validation_ == 0 || sum.loss() < best_validation_)) best_validation_ = sum.loss();
  spdlog::info("step {}: validation loss {:.4f}, perplexity {}", step, sum.loss(), perplexity_text(sum.perplexity()));
  log_->evaluated(step, sum);
  return sum;
}

void Trainer::save(Saves::Wish wish) {
  heartbeat_.enter(Section::checkpoint, step_);
  const double stall = saves_->begin(wish, engine_->backend(), pieces_, run_state());
  // The copy of a step that both tiers get is the local one's cost.
  if (wish.local) plan_->begun(Tier::local, step_, stall);
  if (!wish.shared) return;
  plan_->begun(Tier::shared, step_, wish.local ? 0 : stall);
  control_.save_begun();
}

void Trainer::progress() {
  heartbeat_.beat();
  saves_->poll();
}

void Trainer::drain() {
  heartbeat_.enter(Section::checkpoint, step_);
  // The collectives by which ranks ask each other count as progress: a disk that never answers is known by the rank whose
  // own writing waits for it (Heartbeat).
  saves_->drain(*engine_->grid().world);
}

ExitCode Trainer::leave(bool complete) {
  drain();
  const bool saved = plan_->last(Tier::shared) == step_ && !saves_->shared().last_failed();
  if (built_with_hdf5() && !saved) {
    check_replicas(true);
    save({.shared = true});
    drain();
  }
  if (saves_->shared().last_failed()) {
    throw Error(ExitCode::io_failed, fmt::format("the last checkpoint, of step {}, could not be written; "
                                                 "the one before it is the newest: see events.jsonl", step_));
  }
  if (!built_with_hdf5()) control_.leaving_without_a_save("this smlp was built without HDF5");
  else if (step_ == 0) control_.leaving_without_a_save("no step is done yet");
  else control_.leaving(step_);
  if (complete) log_->event("complete", step_, "all steps are done");
  else log_->event("stopped", step_, built_with_hdf5() ? "asked to save and leave" : "asked to leave; nothing is saved");
  return complete ? ExitCode::done : ExitCode::call_again;
}

}  // namespace smlp
