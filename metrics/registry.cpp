#include "metrics/registry.h"

#include <fmt/format.h>
#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <algorithm>
#include <array>
#include <limits>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "metrics/step_line.h"

namespace smlp {

namespace {

using prometheus::Counter;
using prometheus::Family;
using prometheus::Gauge;
using prometheus::Histogram;
using prometheus::Labels;

constexpr double unknown = std::numeric_limits<double>::quiet_NaN();  // of a gauge that nothing has set yet
constexpr std::array phases = {"forward",   "backward", "exchange",   "reduce",
                               "optimizer", "data",     "checkpoint", "other"};
constexpr std::array tiers = {"local", "shared"};
constexpr std::array reasons = {"fault",       "io",       "diverged", "signal",
                                "hang",        "launcher", "stopped",  "bad_data", "configuration",
                                "unavailable", "usage",    "other"};

const Histogram::BucketBoundaries& seconds_buckets() {
  static const Histogram::BucketBoundaries bounds = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
                                                     1,     2.5,    5,     10,   25,    50,   100, 250};
  return bounds;
}

template <std::size_t N>
std::size_t place_of(const std::array<const char*, N>& names, std::string_view name) {
  const auto found = std::find(names.begin(), names.end(), name);
  return static_cast<std::size_t>(std::min(found, names.end() - 1) - names.begin());
}

void raise_to(Counter& counter, double value) { counter.Increment(std::max(0.0, value - counter.Value())); }

}  // namespace

// Every family hangs on one registry and lives as long as it.
struct RunMetrics::Families {
  explicit Families(const RunIdentity& identity)
      : identity(identity), rank{{"rank", std::to_string(identity.rank)}} {
    auto build = labels();
    build.insert({{"version", identity.version}, {"device", identity.device}, {"isa", identity.isa}});
    gauge_family("smlp_build_info", "Always 1; what runs here is in the labels").Add(build, 1.0);
    attempt.Set(static_cast<double>(identity.attempt));
    for (std::size_t i = 0; i < phases.size(); ++i) {
      phase_seconds[i] = &phase_family.Add(labels({{"phase", phases[i]}}));
    }
    tier("shared");
    for (std::size_t i = 0; i < reasons.size(); ++i) {
      restarts[i] = &restart_family.Add(labels({{"reason", reasons[i]}}));
    }
  }

  Labels labels(const Labels& more = {}) const {
    Labels all = rank;
    all.insert(more.begin(), more.end());
    return all;
  }
  Family<Gauge>& gauge_family(const char* name, const char* help) {
    return prometheus::BuildGauge().Name(name).Help(help).Register(*registry);
  }
  Family<Counter>& counter_family(const char* name, const char* help) {
    return prometheus::BuildCounter().Name(name).Help(help).Register(*registry);
  }
  Gauge& gauge(const char* name, const char* help, double first) {
    return gauge_family(name, help).Add(labels(), first);
  }
  Counter& counter(const char* name, const char* help) { return counter_family(name, help).Add(labels()); }
  Histogram& histogram(const char* name, const char* help) {
    return prometheus::BuildHistogram().Name(name).Help(help).Register(*registry).Add(labels(),
                                                                                      seconds_buckets());
  }

  // What one sparse block has, made when it first reports.
  struct Block {
    Gauge *balance, *entropy, *rounds;
    Counter* dropped;
    std::vector<Counter*> tokens;
  };
  Block& block(const StepReport::Block& report) {
    expect(report.block >= 0 && report.block < identity.blocks,
           "metrics: a block that the model does not have");
    expect(std::ssize(report.expert_tokens) <= identity.experts, "metrics: more experts than the model has");
    const Labels where = {{"block", std::to_string(report.block)}};
    auto [found, fresh] = blocks.try_emplace(report.block);
    auto& block = found->second;
    if (fresh) {
      block = {&balance.Add(labels(where), unknown),
               &entropy.Add(labels(where), unknown),
               &rounds.Add(labels(where), 0.0),
               &dropped.Add(labels(where)),
               {}};
    }
    while (block.tokens.size() < report.expert_tokens.size()) {
      auto cell = where;
      cell["expert"] = std::to_string(block.tokens.size());
      block.tokens.push_back(&expert_tokens.Add(labels(cell)));
    }
    return block;
  }

  struct TierMetrics {
    Histogram* seconds = nullptr;
    Counter *bytes = nullptr, *failures = nullptr;
    Gauge *step = nullptr, *time = nullptr;
  };
  TierMetrics& tier(std::string_view name) {
    const auto place = place_of(tiers, name);
    auto& one = of_tiers[place];
    if (one.seconds == nullptr) {
      const auto where = labels({{"tier", tiers[place]}});
      one = {&checkpoint_seconds.Add(where, seconds_buckets()), &checkpoint_bytes.Add(where),
             &checkpoint_failures.Add(where), &checkpoint_step.Add(where, unknown),
             &checkpoint_time.Add(where, unknown)};
    }
    return one;
  }

  const RunIdentity identity;
  const Labels rank;
  const std::shared_ptr<prometheus::Registry> registry = std::make_shared<prometheus::Registry>();

  Gauge& step = gauge("smlp_step", "The step that was done last", 0);
  Counter& steps = counter(
      "smlp_steps_total", "Steps that this attempt has done, the same on each rank: max over ranks, not sum");
  Counter& tokens = counter(
      "smlp_tokens_total", "Tokens that all ranks have trained on in this attempt, the same on each rank: max over ranks, not sum");
  Gauge& loss = gauge("smlp_loss", "Training loss of the last step, in nats a token", unknown);
  Gauge& learning_rate = gauge("smlp_learning_rate", "Learning rate of the last step", 0);
  Gauge& gradient_norm = gauge("smlp_gradient_norm", "Norm of the whole gradient, before clipping", unknown);
  Histogram& step_seconds = histogram("smlp_step_seconds", "Seconds a step took on this rank");
  Gauge& tokens_per_second =
      gauge("smlp_tokens_per_second", "Tokens of all ranks in the last step, over its seconds on this rank", 0);
  Gauge& flops_share =
      gauge("smlp_flops_share", "Useful work of this rank over its best matrix product's rate", 0);
  Family<Counter>& phase_family =
      counter_family("smlp_phase_seconds_total", "Seconds of this rank's steps by phase");
  Family<Counter>& expert_tokens = counter_family(
      "smlp_expert_tokens_total", "Tokens of all ranks that each expert took, the same on each rank: max over ranks, not sum");
  Family<Gauge>& balance = gauge_family("smlp_expert_balance", "Tokens of the fullest expert over the mean");
  Family<Gauge>& entropy = gauge_family("smlp_routing_entropy", "Entropy of the experts' shares; 1 is even");
  Family<Gauge>& agreement = gauge_family(
      "smlp_routing_agreement", "Share of held-out tokens that evaluation sends to the experts that training would choose");
  Gauge& loss_scale = gauge("smlp_loss_scale", "What an fp16 loss is multiplied by before the backward pass", 1);
  Gauge& auxiliary_loss =
      gauge("smlp_auxiliary_loss", "What routers add to the training loss, weighted; 0 where they add nothing", 0);
  Gauge& balance_loss = gauge(
      "smlp_balance_loss", "Balance loss of the gates, summed over layers, unweighted; 1 a layer is perfect balance", unknown);
  Gauge& z_loss = gauge("smlp_z_loss", "Mean squared log-sum of the gates' logits, summed over layers, unweighted", unknown);
  Family<Counter>& dropped =
      counter_family("smlp_dropped_tokens_total",
                     "Tokens of all ranks that found no room at an expert, the same on each rank: max over ranks, not sum");
  Family<Gauge>& rounds =
      gauge_family("smlp_assignment_rounds",
                   "Rounds of the balanced assignment, or of Sinkhorn's scaling, in the last step, the most of this rank's "
                   "groups; negative: the limit was met");
  Family<Histogram>& checkpoint_seconds =
      prometheus::BuildHistogram()
          .Name("smlp_checkpoint_seconds")
          .Help("Seconds from a save's begin to its publication")
          .Register(*registry);
  Counter& checkpoint_stall = counter("smlp_checkpoint_stall_seconds_total",
                                      "Seconds that training waited for saves: for copies, and for the save before to end");
  Family<Counter>& checkpoint_bytes =
      counter_family("smlp_checkpoint_bytes_total", "Bytes this rank wrote to published checkpoints");
  Family<Counter>& checkpoint_failures =
      counter_family("smlp_checkpoint_failures_total",
                     "Saves that came to nothing, the same on each rank: max over ranks, not sum");
  Family<Gauge>& checkpoint_step =
      gauge_family("smlp_checkpoint_last_step", "Step of the newest published checkpoint");
  Family<Gauge>& checkpoint_time =
      gauge_family("smlp_checkpoint_last_timestamp_seconds", "When the newest checkpoint was published");
  Family<Gauge>& checkpoint_interval =
      gauge_family("smlp_checkpoint_interval_seconds",
                   "Seconds between saves that checkpoint.auto has chosen, on rank 0 alone");
  Family<Counter>& restart_family = counter_family(
      "smlp_restarts_total", "Restarts of the run by reason, the same on each rank: max over ranks, not sum");
  Family<Counter>& goodput = counter_family(
      "smlp_goodput_seconds_total",
      "Seconds of the run's wall time by what they went to, from its first start, on rank 0 alone");
  Family<Counter>& skipped_updates =
      counter_family("smlp_skipped_updates_total", "Steps of this attempt that changed no weight, by reason, the same on "
                                                   "each rank: max over ranks, not sum");
  Family<Counter>& spikes = counter_family(
      "smlp_spikes_total", "Spikes of the loss, by what was done: skipped in this attempt, rewound in the run, the same on "
                           "each rank: max over ranks, not sum");
  Gauge& attempt = gauge("smlp_attempt", "The attempt that runs, counted from 1", 0);
  Gauge& validation_loss = gauge("smlp_validation_loss", "Loss on held-out text, in nats a token", unknown);

  double steps_before = 0, tokens_before = 0;  // this attempt
  std::array<Counter*, phases.size()> phase_seconds{};
  std::array<Counter*, reasons.size()> restarts{};
  std::map<std::string, std::int64_t> restarts_known;  // by the reason given, of which several may be "other"
  std::map<std::int64_t, Block> blocks;  // loop thread only
  std::array<TierMetrics, tiers.size()> of_tiers{};  // too
};

RunMetrics::RunMetrics(const RunIdentity& identity) : families_(std::make_unique<Families>(identity)) {}
RunMetrics::~RunMetrics() = default;

void RunMetrics::resume(std::int64_t steps, std::int64_t tokens) {
  families_->steps_before = static_cast<double>(steps);
  families_->tokens_before = static_cast<double>(tokens);
  families_->step.Set(static_cast<double>(steps));
}

void RunMetrics::publish(const StepReport& report) {
  auto& f = *families_;
  f.step.Set(static_cast<double>(report.step));
  f.steps.Increment();
  f.tokens.Increment(static_cast<double>(report.tokens));
  f.loss.Set(report.loss);
  f.learning_rate.Set(report.learning_rate);
  f.gradient_norm.Set(report.gradient_norm);
  f.step_seconds.Observe(report.seconds);
  f.tokens_per_second.Set(report.tokens_per_second);
  f.flops_share.Set(report.flops_share);
  for (const auto& [phase, seconds] : report.phase_seconds) {
    f.phase_seconds[place_of(phases, phase)]->Increment(seconds);
  }
  for (const auto& load : report.blocks) {
    auto& block = f.block(load);
    block.balance->Set(expert_balance(load.expert_tokens));
    block.entropy->Set(routing_entropy(load.expert_tokens));
    block.rounds->Set(load.assignment_rounds);
    block.dropped->Increment(load.dropped);
    for (std::size_t e = 0; e < load.expert_tokens.size(); ++e)
      block.tokens[e]->Increment(load.expert_tokens[e]);
  }
  if (report.auxiliary_loss) f.auxiliary_loss.Set(*report.auxiliary_loss);
  if (report.balance_loss) f.balance_loss.Set(*report.balance_loss);
  if (report.z_loss) f.z_loss.Set(*report.z_loss);
  if (report.loss_scale) f.loss_scale.Set(*report.loss_scale);
}

void RunMetrics::evaluated(const EvaluationReport& report) {
  auto& f = *families_;
  f.validation_loss.Set(report.validation_loss);
  for (const auto& [block, share] : report.block_agreement) {
    f.agreement.Add(f.labels({{"block", std::to_string(block)}})).Set(share);
  }
}

void RunMetrics::checkpoint_stalled(double seconds) { families_->checkpoint_stall.Increment(seconds); }

void RunMetrics::checkpoint_published(std::string_view tier, std::int64_t step, double seconds,
                                      std::int64_t bytes, double unix_time) {
  auto& of_tier = families_->tier(tier);
  of_tier.seconds->Observe(seconds);
  of_tier.bytes->Increment(static_cast<double>(bytes));
  checkpoint_found(tier, step, unix_time);
}

void RunMetrics::checkpoint_failed(std::string_view tier) { families_->tier(tier).failures->Increment(); }

void RunMetrics::checkpoint_found(std::string_view tier, std::int64_t step, double unix_time) {
  auto& of_tier = families_->tier(tier);
  of_tier.step->Set(static_cast<double>(step));
  of_tier.time->Set(unix_time);
}

void RunMetrics::checkpoint_interval(std::string_view tier, double seconds) {
  families_->checkpoint_interval.Add(families_->labels({{"tier", std::string(tier)}})).Set(seconds);
}

void RunMetrics::restarts(std::string_view reason, std::int64_t count) {
  auto& known = families_->restarts_known[std::string(reason)];
  const auto more = std::max<std::int64_t>(0, count - known);
  known += more;
  families_->restarts[place_of(reasons, reason)]->Increment(static_cast<double>(more));
}

void RunMetrics::skipped_updates(std::string_view reason, std::int64_t count) {
  raise_to(families_->skipped_updates.Add(families_->labels({{"reason", std::string(reason)}})),
           static_cast<double>(count));
}

void RunMetrics::spikes(std::string_view reason, std::int64_t count) {
  raise_to(families_->spikes.Add(families_->labels({{"reason", std::string(reason)}})), static_cast<double>(count));
}

void RunMetrics::goodput(std::string_view phase, double seconds) {
  raise_to(families_->goodput.Add(families_->labels({{"phase", std::string(phase)}})), seconds);
}

nlohmann::json RunMetrics::to_json(const StepReport& report, double unix_time) const {
  const auto& f = *families_;
  const auto& shared = f.of_tiers[place_of(tiers, "shared")];
  return step_line(report, f.identity.attempt, unix_time,
                   {.steps = f.steps_before + f.steps.Value(),
                    .tokens = f.tokens_before + f.tokens.Value(),
                    .checkpoint_step = shared.step->Value(),
                    .checkpoint_stall_seconds = f.checkpoint_stall.Value(),
                    .checkpoint_failures = shared.failures->Value()});
}

int RunMetrics::rank() const { return families_->identity.rank; }

std::string RunMetrics::text() const {
  return prometheus::TextSerializer().Serialize(families_->registry->Collect());
}

}  // namespace smlp
