#include "launcher/run_results.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/json_lines.h"
#include "core/statistics.h"
#include "launcher/run_status.h"

namespace smlp {

namespace {

struct Step {
  std::int64_t step = 0;
  double seconds = 0, tokens_per_second = 0;
  std::optional<double> tokens, loss, balance, validation_loss, agreement;
  double routed = 0, dropped = 0;
};

// Only what blocks of experts say in a form that holds.
void add_routing(const nlohmann::json& line, Step& step) {
  const auto blocks = line.find("blocks");
  if (blocks == line.end() || !blocks->is_array()) return;
  for (const auto& block : *blocks) {
    if (!block.is_object() || !block.contains("expert_tokens") || !block["expert_tokens"].is_array()) continue;
    const double dropped = number_in(block, "dropped_tokens").value_or(0);
    for (const auto& tokens : block["expert_tokens"]) step.routed += tokens.is_number() ? tokens.get<double>() : 0;
    step.routed += dropped;
    step.dropped += dropped;
  }
}

// Later lines of the same step, or of an earlier one, stand for what was done again from there.
std::vector<Step> read_steps(const RunDirectory& run) {
  std::vector<Step> steps;
  read_json_lines(run.metrics(), [&](const nlohmann::json& line) {
    const auto number = integer_in(line, "step");
    if (!number) return;
    while (!steps.empty() && steps.back().step >= *number) steps.pop_back();
    Step step{.step = *number, .seconds = std::max(0.0, number_in(line, "step_seconds").value_or(0)),
              .tokens_per_second = number_in(line, "tokens_per_second").value_or(0),
              .tokens = number_in(line, "tokens"), .loss = number_in(line, "loss"),
              .balance = number_in(line, "expert_balance"), .validation_loss = number_in(line, "validation_loss"),
              .agreement = number_in(line, "routing_agreement")};
    add_routing(line, step);
    steps.push_back(std::move(step));
  });
  return steps;
}

// Of the events: what the model counts, and evaluations, the first of which has no step's line.
struct Told {
  std::optional<std::int64_t> ranks, evaluated_tokens;
  nlohmann::json parameters, forward_macs;
  std::map<std::int64_t, double> losses, agreements;

  void forget_beyond(std::int64_t step) {
    for (auto* all : {&losses, &agreements}) all->erase(all->upper_bound(step), all->end());
  }
};

Told read_events(const RunDirectory& run) {
  Told told;
  read_json_lines(run.events(), [&](const nlohmann::json& line) {
    const auto event = text_in(line, "event");
    if (event == "start") {
      if (const auto ranks = integer_in(line, "ranks")) told.ranks = ranks;
      if (line.contains("parameters") && line["parameters"].is_object()) told.parameters = line["parameters"];
      if (line.contains("forward_macs") && line["forward_macs"].is_object()) told.forward_macs = line["forward_macs"];
      // What lies beyond the step that this attempt goes on from is done again.
      if (const auto step = integer_in(line, "step")) told.forget_beyond(*step);
    } else if (event == "evaluation") {
      const auto step = integer_in(line, "step");
      const auto loss = number_in(line, "validation_loss");
      const auto agreement = number_in(line, "routing_agreement");
      if (step && loss) told.losses[*step] = *loss;
      if (step && agreement) told.agreements[*step] = *agreement;
      if (const auto tokens = integer_in(line, "tokens")) told.evaluated_tokens = tokens;
    }
  });
  return told;
}

void add_job(const RunDirectory& run, RunResults& results) {
  try {
    const auto job = job_of(run);
    results.kind = job.model.kind;
    if (job.routing.channels != "deterministic") results.kind += ", " + job.routing.channels;
    results.context = job.model.context;
    results.steps = job.train.steps;
    results.tokenizer = job.data.tokenizer;
    results.validation = fmt::format("{}", fmt::join(job.data.valid, ", "));
    if (job.train.eval_sequences > 0) results.validation += fmt::format(", {} sequences", job.train.eval_sequences);
  } catch (const std::exception&) {
    // A job file that is absent or of another version: the rest can still be told.
  }
}

void add_counts(const Told& told, RunResults& results) {
  results.parameters = integer_in(told.parameters, "total");
  results.non_expert = integer_in(told.parameters, "non_expert");
  results.expert = integer_in(told.parameters, "expert");
  results.experts = integer_in(told.parameters, "experts");
  const auto macs = integer_in(told.forward_macs, "paper");
  if (macs && results.context && *results.context > 0) results.forward_macs = *macs / (2 * *results.context);
}

void add_steps(const std::vector<Step>& steps, Told told, RunResults& results) {
  std::vector<double> rates;
  double balances = 0, routed = 0, dropped = 0;
  std::int64_t balanced = 0;
  std::map<std::int64_t, double> seconds_at;  // of training, until this step was done
  for (const auto& step : steps) {
    results.seconds += step.seconds;
    results.step = step.step;
    results.loss = step.loss;
    if (step.tokens) results.step_tokens = static_cast<std::int64_t>(*step.tokens);
    if (step.tokens_per_second > 0) rates.push_back(step.tokens_per_second);
    if (step.balance) balances += *step.balance, ++balanced;
    routed += step.routed;
    dropped += step.dropped;
    if (step.validation_loss) told.losses[step.step] = *step.validation_loss;
    if (step.agreement) told.agreements[step.step] = *step.agreement;
    seconds_at[step.step] = results.seconds;
  }
  if (!rates.empty()) results.tokens_per_second = upper_median(std::move(rates));
  if (balanced > 0) results.balance = balances / static_cast<double>(balanced);
  if (routed > 0) results.dropped_share = dropped / routed;
  if (!told.agreements.empty()) results.routing_agreement = told.agreements.rbegin()->second;
  for (const auto& [step, loss] : told.losses) {
    if (!std::isfinite(loss)) continue;
    // The line of the step itself may be lost.
    const auto after = seconds_at.upper_bound(step);
    results.evaluations.push_back({step, after == seconds_at.begin() ? 0 : std::prev(after)->second, loss});
  }
}

}  // namespace

double Evaluated::perplexity() const { return std::exp(loss); }

const Evaluated* RunResults::last() const { return evaluations.empty() ? nullptr : &evaluations.back(); }
const Evaluated* RunResults::best() const {
  const auto least = std::min_element(evaluations.begin(), evaluations.end(),
                                      [](const auto& a, const auto& b) { return a.loss < b.loss; });
  return least == evaluations.end() ? nullptr : &*least;
}
const Evaluated* RunResults::first_at(double perplexity) const {
  const auto found = std::find_if(evaluations.begin(), evaluations.end(),
                                  [&](const auto& e) { return e.perplexity() <= perplexity; });
  return found == evaluations.end() ? nullptr : &*found;
}

RunResults read_results(const RunDirectory& run) {
  expect_run(run);
  RunResults results;
  const auto status = read_status(run);
  results.name = status.name;
  results.state = status.state;
  results.attempts = status.attempts;
  results.restarts = status.restarts;
  add_job(run, results);
  auto told = read_events(run);
  results.ranks = told.ranks;
  if (told.evaluated_tokens) results.validation += fmt::format(" ({} tokens)", *told.evaluated_tokens);
  add_counts(told, results);
  add_steps(read_steps(run), std::move(told), results);
  if (results.evaluations.empty()) results.validation.clear();  // nothing to compare with others
  return results;
}

nlohmann::json to_json(const RunResults& results) {
  const auto point = [](const Evaluated* e) {
    if (e == nullptr) return nlohmann::json();
    return nlohmann::json{{"step", e->step}, {"seconds", e->seconds}, {"loss", e->loss}, {"perplexity", e->perplexity()}};
  };
  nlohmann::json json = {{"name", results.name},
                         {"kind", results.kind},
                         {"state", results.state},
                         {"parameters", or_null(results.parameters)},
                         {"non_expert_parameters", or_null(results.non_expert)},
                         {"expert_parameters", or_null(results.expert)},
                         {"experts", or_null(results.experts)},
                         {"forward_macs_per_token", or_null(results.forward_macs)},
                         {"step", results.step},
                         {"steps", or_null(results.steps)},
                         {"step_tokens", or_null(results.step_tokens)},
                         {"ranks", or_null(results.ranks)},
                         {"training_seconds", results.seconds},
                         {"loss", or_null(results.loss)},
                         {"last", point(results.last())},
                         {"best", point(results.best())},
                         {"tokens_per_second", or_null(results.tokens_per_second)},
                         {"expert_balance", or_null(results.balance)},
                         {"dropped_share", or_null(results.dropped_share)},
                         {"routing_agreement", or_null(results.routing_agreement)},
                         {"attempts", results.attempts},
                         {"restarts", results.restarts},
                         {"tokenizer", results.tokenizer},
                         {"validation", results.validation}};
  json["evaluations"] = nlohmann::json::array();
  for (const auto& e : results.evaluations) json["evaluations"].push_back(point(&e));
  return json;
}

}  // namespace smlp
