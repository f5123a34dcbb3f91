#include "eval/causality.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <vector>

#include "core/error.h"
#include "core/random.h"

namespace smlp {

namespace {

constexpr std::int64_t sequences = 2, changed_sequence = 1;
constexpr std::int64_t most_logits = std::int64_t{1} << 24;  // kept at once

using Tokens = std::vector<std::int32_t>;

// `count` different numbers of [first, end), the two ends among them, in ascending order.
std::vector<std::int64_t> spread(std::int64_t first, std::int64_t end, std::int64_t count, std::uint64_t seed) {
  std::set<std::int64_t> chosen;
  if (end - first <= count) {
    for (auto i = first; i < end; ++i) chosen.insert(i);
  } else {
    chosen = {first, end - 1};
    const RandomStream random(seed, "positions");
    for (std::uint64_t i = 0; std::ssize(chosen) < count; ++i) {
      chosen.insert(first + static_cast<std::int64_t>(random.bits(i) % static_cast<std::uint64_t>(end - first)));
    }
  }
  return {chosen.begin(), chosen.end()};
}

class Check {
 public:
  Check(Model& model, Backend& backend, Arena& arena, const CausalityPlan& plan)
      : model_(model), backend_(backend), arena_(arena), plan_(plan), random_(plan.seed, "tokens") {
    const auto room = std::max<std::int64_t>(2, most_logits / plan.vocabulary / sequences);
    // The last position has no later token, but it is watched where all are.
    watched_ = spread(plan.first_position, plan.context, room, plan.seed);
    for (std::int64_t i = 0; i < sequences * plan.context; ++i) original_.push_back(token(static_cast<std::uint64_t>(i)));
  }

  CausalityReport run() {
    CausalityReport report;
    const auto before = logits(original_);
    if (!std::all_of(before.begin(), before.end(), [](double x) { return std::isfinite(x); })) {
      throw Error(ExitCode::diverged, "the model's logits are not finite, which no later token could change: its weights are "
                                      "damaged or diverged");
    }
    for (const auto index : spread(0, std::ssize(watched_), plan_.tries + 1, plan_.seed + 1)) {
      const auto after = watched_[static_cast<std::size_t>(index)];
      if (after + 1 >= plan_.context) continue;
      ++report.tried;
      // All kinds of tokens, and one kind alone, which may crowd into one expert.
      for (const bool alike : {false, true}) compare(before, logits(changed(after, alike)), after, report);
    }
    report.watched = std::ssize(watched_);
    report.leaking = std::ssize(leaking_);
    return report;
  }

 private:
  std::int32_t token(std::uint64_t index) const {
    return static_cast<std::int32_t>(random_.bits(index) % static_cast<std::uint64_t>(plan_.vocabulary));
  }

  Tokens changed(std::int64_t after, bool alike) {
    Tokens tokens = original_;
    auto* const sequence = tokens.data() + changed_sequence * plan_.context;
    const auto vocabulary = static_cast<std::int32_t>(plan_.vocabulary);
    for (auto t = after + 1; t < plan_.context; ++t) {
      const auto other = alike ? sequence[after] : token(static_cast<std::uint64_t>(plan_.context * (2 + after) + t));
      sequence[t] = other == sequence[t] ? (other + 1) % vocabulary : other;
    }
    return tokens;
  }

  // [sequences][watched][vocabulary]
  std::vector<double> logits(const Tokens& tokens) {
    arena_.reset();
    Context c{.backend = backend_, .scratch = arena_, .mode = Mode::evaluation, .sequences = sequences,
              .length = plan_.context};
    c.tokens = arena_.take({sequences * plan_.context}, DType::i32);
    backend_.upload(tokens.data(), c.tokens);
    std::vector<std::int32_t> rows;
    for (std::int64_t s = 0; s < sequences; ++s) {
      for (const auto t : watched_) rows.push_back(static_cast<std::int32_t>(s * plan_.context + t));
    }
    const TensorView index = arena_.take({std::ssize(rows)}, DType::i32);
    backend_.upload(rows.data(), index);
    const TensorView out = arena_.take({std::ssize(rows), plan_.vocabulary}, DType::f64);
    model_.forward_logits(c, index, out);
    std::vector<double> values(static_cast<std::size_t>(out.size()));
    backend_.download(out, values.data());
    return values;
  }

  void compare(const std::vector<double>& before, const std::vector<double>& now, std::int64_t after,
               CausalityReport& report) {
    for (std::int64_t s = 0; s < sequences; ++s) {
      for (std::int64_t w = 0; w < std::ssize(watched_); ++w) {
        const auto position = watched_[static_cast<std::size_t>(w)];
        if (s == changed_sequence && position > after) break;
        const auto [logit, moved] = furthest(before, now, s * std::ssize(watched_) + w);
        if (s != changed_sequence) {
          report.largest_move_elsewhere = std::max(report.largest_move_elsewhere, moved);
          continue;
        }
        report.largest_move = std::max(report.largest_move, moved);
        if (moved <= plan_.bound) continue;
        leaking_.insert(position);
        const bool earlier = !report.first || position < report.first->position;
        const bool clearer = report.first && position == report.first->position && moved > report.first->moved;
        if (earlier || clearer) report.first = Leak{position, after, logit, moved};
      }
    }
  }

  // What is no number any more has moved too.
  std::pair<std::int64_t, double> furthest(const std::vector<double>& before, const std::vector<double>& now,
                                           std::int64_t row) const {
    std::pair<std::int64_t, double> most{0, 0.0};
    for (std::int64_t v = 0; v < plan_.vocabulary; ++v) {
      const auto i = static_cast<std::size_t>(row * plan_.vocabulary + v);
      const double moved = std::abs(now[i] - before[i]);
      if (std::isnan(moved)) return {v, HUGE_VAL};
      if (moved > most.second) most = {v, moved};
    }
    return most;
  }

  Model& model_;
  Backend& backend_;
  Arena& arena_;
  CausalityPlan plan_;
  RandomStream random_;
  std::vector<std::int64_t> watched_;
  Tokens original_;
  std::set<std::int64_t> leaking_;
};

}  // namespace

CausalityReport check_causality(Model& model, Backend& backend, Arena& arena, const CausalityPlan& plan) {
  if (plan.vocabulary < 2 || plan.first_position + 2 > plan.context) {
    throw Error(ExitCode::configuration,
                fmt::format("a context of {} tokens, the first {} of which are not predicted, and a vocabulary of {} leave "
                            "no later token to change",
                            plan.context, plan.first_position, plan.vocabulary));
  }
  return Check(model, backend, arena, plan).run();
}

}  // namespace smlp
