// The loop of one rank: restore, step, evaluate, save, leave. The one owner of everything below it. There is no
// restart path of its own: every start loads the newest valid checkpoint if there is one.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/error.h"
#include "core/run_directory.h"
#include "data/token_file.h"
#include "layers/plan.h"
#include "worker/batch_loader.h"
#include "worker/control.h"
#include "worker/divergence.h"
#include "worker/drill_faults.h"
#include "worker/engine.h"
#include "worker/heartbeat.h"
#include "worker/restore.h"
#include "worker/run_log.h"
#include "worker/save_plan.h"
#include "worker/saves.h"

namespace smlp {

struct TrainerOptions {
  RunDirectory run;
  int attempt = 1;
  std::optional<std::int64_t> not_after;            // checkpoints newer than this step are not used
  std::optional<std::filesystem::path> init_from;   // weights for a run without a checkpoint
};

class Trainer {
 public:
  Trainer(const JobConfig& job, const TrainerOptions& options, std::unique_ptr<Engine> engine, Heartbeat& heartbeat,
          Control& control);
  ~Trainer();
  // done, call_again or diverged; everything else is an Error.
  ExitCode run();
  const std::string& why_diverged() const { return why_diverged_; }  // a sentence, the same on all ranks

 private:
  void restore();
  void load_weights_of(const std::filesystem::path& other);
  void load_verified(const RestorePoint& chosen);
  void take_up(const RunState& state);
  void add_local_tier(const LocalStart& local, std::optional<SaveId> start);
  void step();
  void put_wishes(std::span<double> flags);
  void progress();  // within a step
  // Validation loss, where there is held-out data and nobody asks to leave meanwhile: then stop_ is set.
  std::optional<Evaluation> evaluate(std::int64_t step);
  bool asked_meanwhile();
  bool evaluation_due() const;
  bool kept_for_good() const;  // the checkpoint of this step
  void save(Saves::Wish wish);
  void save_over(const SaveOutcome& outcome);
  void choose_intervals();
  void drain();  // until the saves under way are published or failed
  ExitCode leave(bool complete);
  ExitCode diverged();
  bool may_update(const StepResult& result, std::int64_t position);
  bool may_save(const StepResult& result) const;
  void check_replicas(bool before_a_save);
  void leave_verdict(const Verdict& verdict);  // before any rank leaves
  RunState run_state() const;
  void tell_of_saves(const RestorePoint& chosen, const LocalStart* local);
  void tell_of_other_data(const RunState& saved) const;  // as far as lengths and samples show
  bool complete() const { return step_ >= job_.train.steps; }
  bool evaluates() const { return job_.train.eval_every > 0 && !valid_.empty(); }
  bool evaluated() const { return !evaluates() || validated_step_ == step_; }

  JobConfig job_;
  TrainerOptions options_;
  std::unique_ptr<Engine> engine_;
  Heartbeat& heartbeat_;
  Control& control_;
  PlanCounts counts_;
  std::string tokenizer_;  // fingerprint of the one behind data.train; "": not known
  std::unique_ptr<RunLog> log_;
  std::unique_ptr<DrillFaults> drill_;  // none, but in a drill
  std::unique_ptr<Saves> saves_;
  std::unique_ptr<SavePlan> plan_;
  std::unique_ptr<TokenStream> stream_;
  std::string data_digest_;  // TokenStream::sample_digest() of stream_
  std::unique_ptr<BatchLoader> loader_;
  std::vector<TokenFile> valid_;
  std::vector<Piece> pieces_;

  std::unique_ptr<Divergence> divergence_;

  std::int64_t step_ = 0, sequences_ = 0;  // done; sequences of the run's order that lie behind it
  std::int64_t replicas_alike_ = 0;        // step of the last comparison that found no difference, or of the start
  bool restored_ = false;
  double best_validation_ = 0;  // 0: none yet
  std::int64_t validated_step_ = -1;  // of the last evaluation, and what it found
  double validation_loss_ = 0;
  bool stop_ = false;
  OwnFinite own_finite_;  // of the last step
  std::string why_diverged_;
};

}  // namespace smlp
