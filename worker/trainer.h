// The loop of one rank: restore, step, evaluate, save, leave. The one owner of everything below it. There is no
// restart path of its own: every start loads the newest valid checkpoint if there is one.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <vector>

#include "core/error.h"
#include "core/run_directory.h"
#include "data/token_file.h"
#include "worker/batch_loader.h"
#include "worker/checkpointing.h"
#include "worker/control.h"
#include "worker/divergence.h"
#include "worker/engine.h"
#include "worker/heartbeat.h"
#include "worker/run_log.h"

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

 private:
  void restore();
  void step();
  std::optional<Evaluation> evaluate(std::int64_t step);  // when there is held-out data
  void save();
  void drain();  // until the save under way is published or failed
  ExitCode leave(bool complete);
  ExitCode diverged();
  bool may_update(const StepResult& result, std::int64_t position);
  void check_replicas();
  void leave_verdict(const Verdict& verdict);  // before any rank leaves
  RunState run_state() const;
  bool save_due() const;
  bool complete() const { return step_ >= job_.train.steps; }

  JobConfig job_;
  TrainerOptions options_;
  std::unique_ptr<Engine> engine_;
  Heartbeat& heartbeat_;
  Control& control_;
  std::unique_ptr<RunLog> log_;
  std::unique_ptr<Checkpointing> checkpoints_;
  std::unique_ptr<TokenStream> stream_;
  std::unique_ptr<BatchLoader> loader_;
  std::vector<TokenFile> valid_;
  std::vector<Piece> pieces_;

  std::unique_ptr<Divergence> divergence_;

  std::int64_t step_ = 0, sequences_ = 0;  // done; sequences of the run's order that lie behind it
  std::int64_t saved_step_ = -1;           // newest step that a save was begun for, or that was restored
  std::int64_t replicas_alike_ = 0;        // step of the last comparison that found no difference, or of the start
  bool restored_ = false;
  double best_validation_ = 0;  // 0: none yet
  std::int64_t validated_step_ = -1;  // of the last evaluation, and what it found
  double validation_loss_ = 0;
  Stopwatch since_save_;
  bool stop_ = false;
};

}  // namespace smlp
