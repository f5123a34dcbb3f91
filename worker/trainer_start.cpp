// How a Trainer begins: from the newest save of either tier, and with what tiers it goes on.
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <spdlog/spdlog.h>

#include "checkpoint/manifest.h"
#include "core/features.h"
#include "core/files.h"
#include "core/run_directory.h"
#include "worker/plan_json.h"
#include "worker/routing_settings.h"
#include "worker/trainer.h"

namespace smlp {

void Trainer::restore() {
  auto& world = *engine_->grid().world;
  const auto rejected = [this](const std::string& what, const std::string& reason) {
    spdlog::warn("checkpoint {} is not used: {}", what, reason);
    log_->event("checkpoint_rejected", 0, fmt::format("{}: {}", what, reason));
  };
  const auto beat = [this] { heartbeat_.beat(); };
  std::unique_ptr<LocalStart> local;
  if (!job_.checkpoint.local_dir.empty()) {
    local = std::make_unique<LocalStart>(job_.checkpoint.local_dir, options_.run, options_.not_after, world, rejected);
  }
  const auto warn = [this](const std::string& sentence) { log_->untidy(0, sentence); };
  const auto chosen = choose_checkpoint({options_.run.checkpoints(), options_.not_after, local.get(), warn}, world,
                                        [&](const std::filesystem::path& path, const std::string& reason) {
                                          rejected(path.filename().string(), reason);
                                        },
                                        beat);
  if (chosen) {
    load_verified(*chosen);
  } else if (options_.init_from) {
    load_weights_of(*options_.init_from);
  }
  if (!local && world.rank() == 0) give_up_later_local_saves(options_.run, options_.attempt, step_);
  if (local && local->begin(options_.attempt, step_)) {
    add_local_tier(*local, chosen && chosen->local ? std::optional(chosen->local->id) : std::nullopt);
  }
  if (built_with_hdf5()) saves_->prepare(engine_->backend(), pieces_);
  replicas_alike_ = step_;
  const auto tier = chosen && chosen->local ? Tier::local : Tier::shared;
  plan_->start(step_, tier);
  log_->resumed(step_, divergence_->trained(sequences_) * job_.model.context, divergence_->counts());
  if (chosen) tell_of_saves(*chosen, local.get());
  const auto from = chosen && chosen->local ? fmt::format("from the local save of step {}", step_)
                    : chosen               ? fmt::format("from {}", chosen->shared.filename().string())
                    : options_.init_from   ? fmt::format("with the weights of {}", options_.init_from->string())
                                           : std::string("from the first step");
  spdlog::info("attempt {} starts {} on {} ranks", options_.attempt, from, world.size());
  const auto facts = to_json(counts_);
  log_->event("start", step_, from,
              {{"ranks", world.size()},
               {"tier", name_of(tier)},
               {"parameters", facts["parameters"]},
               {"forward_macs", facts["forward_macs"]}});
  if (!built_with_hdf5()) {
    const auto sentence = "no checkpoints are written: this smlp was built without HDF5";
    spdlog::warn("{}", sentence);
    log_->event("saves_nothing", step_, sentence);
  }
  choose_intervals();
}

void Trainer::tell_of_saves(const RestorePoint& chosen, const LocalStart* local) {
  if (chosen.local) log_->found({Tier::local, step_, local->saved_at(chosen.local->id)});
  const auto& shared = chosen.local ? chosen.shared_beside : chosen.shared;
  const auto of_step = step_of_checkpoint(shared.filename().string());
  if (of_step) log_->found({Tier::shared, *of_step, written_at(shared / manifest_name)});
}

// Checkpoints of older versions hold no digest, or not even the lengths.
void Trainer::tell_of_other_data(const RunState& saved) const {
  const auto of_length = saved.integers.find("data_tokens");
  if (of_length == saved.integers.end()) return;
  const auto& then = of_length->second;
  const auto now = stream_->tokens();
  const auto digest = saved.text("data_digest");
  if (then == now && (digest.empty() || digest == data_digest_)) return;
  const auto counts = [](const std::vector<std::int64_t>& tokens) { return fmt::format("{}", fmt::join(tokens, " and ")); };
  const auto difference =
      then == now ? fmt::format("holds as many tokens as at step {}, but others: what of them was read already is not known", step_)
                  : fmt::format("held {} tokens at step {} and holds {} now; their order hangs on that, so from here on some are "
                                "read twice and some not at all", counts(then), step_, counts(now));
  const auto sentence = fmt::format("the training data is not what it was: data.train, {}, {}. Put the files back to go on as if "
                                    "nothing had happened", fmt::join(job_.data.train, ", "), difference);
  spdlog::warn("{}", sentence);
  log_->event("data_changed", step_, sentence);
}

void Trainer::load_weights_of(const std::filesystem::path& other) {
  if (kind_of_path(other) == PathKind::absent) {
    throw Error(ExitCode::configuration,
                fmt::format("the run was to begin with the weights of {}, which is not there any more, and none of its own saves "
                            "holds: put it back, or name another with --init-from", other.string()));
  }
  auto& world = *engine_->grid().world;
  load_together(shared_save(other, world.size()), world, engine_->backend(), engine_->pieces(false),
                {.weights_only = true, .between = [this] { heartbeat_.beat(); }});
  check_tables(engine_->backend(), engine_->store(), job_, other.string());
  engine_->weights_loaded(false);
}

// It was sound a moment ago: the next start looks again, and takes another where it no longer is.
void Trainer::load_verified(const RestorePoint& chosen) {
  auto& world = *engine_->grid().world;
  StoredSave save;
  try {
    save = chosen.local ? chosen.local->save : shared_save(chosen.shared, world.size());
    load_together(save, world, engine_->backend(), pieces_, {.between = [this] { heartbeat_.beat(); }});
  } catch (const Error& error) {
    if (error.code() != ExitCode::bad_data) throw;
    const auto name = chosen.local ? chosen.local->save.name : chosen.shared.string();
    throw Error(ExitCode::io_failed,
                fmt::format("{} was sound when it was verified, and is not as it is read: {}", name, error.what()));
  }
  check_tables(engine_->backend(), engine_->store(), job_, save.name);
  take_up(save.manifest.state);
}

void Trainer::take_up(const RunState& state) {
  step_ = state.integer("step");
  sequences_ = state.integer("sequences");
  divergence_->restore(state);
  restored_ = true;
  engine_->set_updates(state.integer("updates"));
  engine_->weights_loaded(true);
  if (const auto scale = state.numbers.find("loss_scale"); scale != state.numbers.end()) {
    engine_->loss_scale().restore({scale->second.at(0), state.integer("loss_scale_clean_steps")});
  }
  best_validation_ = state.number("best_validation_loss");
  if (const auto loss = state.numbers.find(RunState::validation_loss); loss != state.numbers.end()) {
    validated_step_ = step_;
    validation_loss_ = loss->second.at(0);
  }
  tell_of_other_data(state);
}

void Trainer::add_local_tier(const LocalStart& local, std::optional<SaveId> start) {
  auto& world = *engine_->grid().world;
  const WriterOptions writing{
      .root = local.folder(), .rank = world.rank(), .ranks = world.size(), .attempt = options_.attempt, .local = true};
  saves_->add_local(std::make_unique<LocalTier>(writing, world.split(0, world.rank()), local.partners(), start,
                                                [this](const SaveOutcome& outcome) { save_over(outcome); }));
}

}  // namespace smlp
