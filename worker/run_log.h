// What a run says of itself while it trains: metrics for Prometheus on every rank, metrics.jsonl, events.jsonl and
// targets.json by rank 0. A disk that is full or away never ends the run: the line is lost, a warning is logged. Those of
// steps are written behind the loop's back, all before the log ends.
#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "comm/communicator.h"
#include "core/job_config.h"
#include "core/run_directory.h"
#include "worker/checkpointing.h"
#include "worker/divergence.h"
#include "worker/engine.h"

namespace smlp {

struct StepLine {
  std::int64_t step = 0, sequences = 0;  // done so far
  std::int64_t step_tokens = 0;                      // of this step, all ranks
  StepResult result;
  double seconds = 0;
  std::optional<Evaluation> evaluation;  // after this step
  double evaluation_seconds = 0;         // which `seconds` does not hold
};

struct FoundSave {
  Tier tier = Tier::shared;
  std::int64_t step = 0;
  std::optional<double> saved_at{};  // in seconds since 1970, where that can be told
};

class RunLog {
 public:
  // Collective: the ranks' addresses are gathered. `peak` and `work`: this rank's product rate and the useful
  // floating-point operations of one token, for the share of peak.
  RunLog(const RunDirectory& run, int attempt, const JobConfig& job, Communicator& world, double peak, double work,
         const std::string& gpu);  // Backend::device_id()
  ~RunLog();

  void event(const std::string& kind, std::int64_t step, const std::string& detail,
             const nlohmann::json& more = nlohmann::json::object());
  void step(const StepLine& line);
  void evaluated(std::int64_t step, const Evaluation& evaluation);
  void saved(const SaveOutcome& outcome);
  void untidy(std::int64_t step, const std::string& sentence);  // saves hold, but not all around them is as it should be
  void save_interval(Tier tier, std::int64_t step, double seconds, const std::string& sentence);
  double seconds_up() const;  // rank 0: of the run so far, without the time in which no launcher was there
  // Where this attempt begins; `counts`: what the save that it begins from knows.
  void resumed(std::int64_t step, std::int64_t tokens, const Divergence::Counts& counts);
  void found(const FoundSave& save);  // the newest of its tier at the start
  void left_out(const Divergence::Counts& counts);

 private:
  void saved_locally(const SaveOutcome& outcome);
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace smlp
