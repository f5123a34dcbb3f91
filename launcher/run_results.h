// What a run reached and what that took, from the files of its directory alone: dead or alive, written by any version.
// What can't be known is absent. Steps that a later attempt did again count once, as they were done last.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "core/run_directory.h"

namespace smlp {

struct Evaluated {
  std::int64_t step = 0;
  double seconds = 0;  // of training up to there: the steps that count, evaluations and pauses left out
  double loss = 0;     // nats a token, on held-out text
  double perplexity() const;
};

struct RunResults {
  std::string name, kind, state;  // kind: "smlp", or "smlp, partial" where routing says more
  std::optional<std::int64_t> parameters, non_expert, expert, experts, forward_macs, context;  // macs: of a token
  std::int64_t step = 0;          // done
  std::optional<std::int64_t> steps, ranks, step_tokens;
  double seconds = 0;             // of training
  std::vector<Evaluated> evaluations;  // by step; finite losses alone
  std::optional<double> loss;          // of the last step
  std::optional<double> tokens_per_second;  // median over steps
  std::optional<double> balance;            // tokens of the fullest expert over the mean, averaged over steps
  std::optional<double> dropped_share;      // of the tokens that were routed
  std::optional<double> routing_agreement;  // of the last evaluation: tokens that go where training would send them
  std::int64_t attempts = 0, restarts = 0;
  // What perplexities must have in common to be compared; "" where it is not known.
  std::string tokenizer, validation;

  const Evaluated* last() const;
  const Evaluated* best() const;
  const Evaluated* first_at(double perplexity) const;  // the first as good as that
};

// Throws Error(configuration) when the folder is no run.
RunResults read_results(const RunDirectory& run);
nlohmann::json to_json(const RunResults& results);

}  // namespace smlp
