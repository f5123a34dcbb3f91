// The numbers of a run, under the names of docs/metrics.md: every metric that Prometheus scrapes, set from
// plain structs by the loop thread and read by the exporter's threads at any time. Each rank owns one
// RunMetrics. Label values are bounded: ranks, blocks and experts by the job, phases and reasons by the lists
// in registry.cpp.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace smlp {

// Maximum over mean of the tokens that each expert took: 1 is even. NaN when there were none.
double expert_balance(std::span<const double> tokens);
// -sum p ln p / ln E of the experts' shares: 1 is even, 0 is one expert for all. 1 for a lone expert, NaN for
// no tokens.
double routing_entropy(std::span<const double> tokens);

// Of an evaluation, the same on every rank.
struct EvaluationReport {
  double validation_loss = 0;
  // Share of held-out tokens that evaluation sends to the experts that training would choose: of all blocks, and by block.
  std::optional<double> routing_agreement{};
  std::map<std::int64_t, double> block_agreement{};
};

// Numbers are of the whole job, the same on every rank, unless they say "mine".
struct StepReport {
  struct Block {
    std::int64_t block = 0;             // index in the stack
    std::vector<double> expert_tokens;  // of this step
    double dropped = 0;                 // tokens of this step
    double assignment_rounds = 0;       // mine: the most any routing group needed; negative: the cap was met
  };

  std::int64_t step = 0;    // just done
  std::int64_t tokens = 0;  // of this step
  double loss = 0, learning_rate = 0, gradient_norm = 0;
  double seconds = 0;  // mine
  double tokens_per_second = 0;
  double flops_share = 0;  // mine: useful work over what this machine's best product gives
  std::map<std::string, double>
      phase_seconds;  // mine; names of phase_seconds_total's label, others count as "other"
  std::vector<Block> blocks;
  // What routers add to the loss, weighted; and, of softmax gates, their balance and z-losses themselves, summed over layers.
  std::optional<double> auxiliary_loss{}, balance_loss{}, z_loss{}, loss_scale{};
  std::optional<EvaluationReport> evaluation{};  // when this step ended with one: for its line alone
};

struct RunIdentity {
  int rank = 0;
  std::int64_t attempt = 1;
  std::string version, device, isa;
  std::int64_t blocks = 0, experts = 0;  // of the model, all blocks
};

class RunMetrics {
 public:
  explicit RunMetrics(const RunIdentity& identity);
  ~RunMetrics();
  RunMetrics(const RunMetrics&) = delete;
  RunMetrics& operator=(const RunMetrics&) = delete;

  // Where the run stands when this attempt begins. Counters start at 0 all the same: a restart goes back to a checkpoint,
  // and of a counter that goes back Prometheus takes all of the new value for growth. Lines of metrics.jsonl count on.
  void resume(std::int64_t steps, std::int64_t tokens);
  void publish(const StepReport& report);
  void evaluated(const EvaluationReport& report);  // at whatever step, or by an earlier attempt

  void checkpoint_stalled(double seconds);  // the loop waited for saves: for the one before, for a copy
  // Of a tier: "shared" or "local". A tier shows from its first word on, the shared one always.
  void checkpoint_published(std::string_view tier, std::int64_t step, double seconds, std::int64_t bytes,
                            double unix_time);
  void checkpoint_failed(std::string_view tier);
  void checkpoint_found(std::string_view tier, std::int64_t step, double unix_time);  // as this attempt began
  void checkpoint_interval(std::string_view tier, double seconds);  // chosen: checkpoint.auto

  // How often the run was restarted so far for this reason: one of the list in registry.cpp, others count as "other".
  void restarts(std::string_view reason, std::int64_t count);
  // So far, never less than before. Updates left out: "nonfinite", "overflow" or "spike"; spikes of the loss: "skip" or
  // "rewind".
  void skipped_updates(std::string_view reason, std::int64_t count);
  void spikes(std::string_view reason, std::int64_t count);
  // Seconds of the run's wall time that went to this phase so far; what the run's one book-keeper says, rank 0.
  void goodput(std::string_view phase, double seconds);

  // The same numbers as one line of metrics.jsonl: keys are the metrics' names without the prefix, and
  // `time`. A number that is not finite is null.
  nlohmann::json to_json(const StepReport& report, double unix_time) const;

  std::string text() const;  // what a scrape gets, but for a GPU's readings
  int rank() const;

 private:
  struct Families;
  std::unique_ptr<Families> families_;
};

}  // namespace smlp
