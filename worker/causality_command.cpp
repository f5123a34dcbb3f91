#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "checkpoint/checkpoint.h"
#include "core/error.h"
#include "core/json_text.h"
#include "core/random.h"
#include "eval/causality.h"
#include "worker/commands.h"
#include "worker/routing_settings.h"

namespace smlp {

namespace {

constexpr double near_zero = 2e-3;

// A model in float64 on one rank, with what it lives on: the CPU, whatever the job trains on, for no GPU computes that.
struct Checked {
  // Without `fresh` its values are undefined: a checkpoint follows.
  Checked(const JobConfig& job, bool fresh)
      : backend(make_cpu_backend({.threads = static_cast<int>(job.cluster.threads)})),
        solo(make_solo(*backend)),
        arena(*backend) {
    auto config = model_config(job);
    if (fresh) config.router.hash_table = make_hash_table(job, *solo);
    model = make_model(config, store, ExpertGroup{*solo});
    store.seal(*backend, DType::f64, static_cast<std::uint64_t>(job.seed), fresh);
  }
  std::unique_ptr<Backend> backend;
  std::unique_ptr<Communicator> solo;
  ParameterStore store;
  Arena arena;
  std::unique_ptr<Model> model;
};

std::vector<double> values_of(Backend& backend, const Parameter& parameter) {
  std::vector<double> values(static_cast<std::size_t>(parameter.value.size()));
  backend.download(parameter.value, values.data());
  return values;
}

// First values hide leaks where they are next to nothing (the token mixing, an expert's second map, biases): such weights
// get random ones, of deviation 1 / sqrt(the last dimension) for maps and 0.1 for vectors. How many there were.
std::int64_t randomise_what_is_near_zero(Checked& checked, std::uint64_t seed) {
  std::int64_t tensors = 0;
  for (const auto& parameter : checked.store.parameters()) {
    auto values = values_of(*checked.backend, parameter);
    if (std::any_of(values.begin(), values.end(), [](double v) { return std::abs(v) > near_zero; })) continue;
    const RandomStream random(seed, "causality " + parameter.name);
    const double deviation =
        parameter.shape.rank() > 1 ? 1 / std::sqrt(static_cast<double>(parameter.shape.last())) : 0.1;
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = deviation * random.normal(i);
    checked.backend->upload(values.data(), parameter.value);
    ++tensors;
  }
  return tensors;
}

void load_weights(Checked& checked, const std::filesystem::path& checkpoint) {
  const auto stored = list_tensors(checkpoint);
  const auto type_of = [&](const std::string& name, const Shape& shape) {
    const auto named = [&](const LogicalTensor& tensor) { return tensor.name == name; };
    const auto found = std::find_if(stored.begin(), stored.end(), named);
    if (found != stored.end() && found->shape == shape) return found->dtype;
    throw Error(ExitCode::configuration,
                fmt::format("{} holds no tensor {} of the shape that this job's model needs: leave out the --set that "
                            "changes the model",
                            checkpoint.string(), name));
  };
  for (const auto& parameter : checked.store.parameters()) {
    const auto type = type_of(parameter.name, parameter.shape);
    auto values = read_tensor(checkpoint, parameter.name);
    checked.backend->copy(TensorView(values.data(), parameter.shape, type), parameter.value);
  }
  for (const auto& table : checked.store.tables()) {
    expect(type_of(table.name, table.view.shape) == table.view.dtype, "causality: a table of another type");
    checked.backend->upload(read_tensor(checkpoint, table.name).data(), table.view);
  }
}

std::string sentence(const CausalityReport& report, const CausalityPlan& plan) {
  if (report.causal()) {
    return fmt::format("causal: no logit saw a later token, with the tokens after each of {} positions changed (bound "
                       "{:.0e}, largest move {:.1e}, float64)",
                       report.tried, plan.bound, report.largest_move);
  }
  const auto& leak = *report.first;
  return fmt::format("LEAKS: position {} sees tokens after position {}: changing them moves logit {} by {:.3g} (bound "
                     "{:.0e}, float64); {} of {} positions leak",
                     leak.position, leak.after, leak.logit, leak.moved, plan.bound, report.leaking, report.watched);
}

nlohmann::json to_json(const CausalityReport& report, const CausalityPlan& plan) {
  nlohmann::json facts = {{"causal", report.causal()},
                          {"bound", plan.bound},
                          {"context", plan.context},
                          {"first_position", plan.first_position},
                          {"positions_tried", report.tried},
                          {"positions_watched", report.watched},
                          {"positions_leaking", report.leaking},
                          {"largest_move", report.largest_move},
                          {"largest_move_elsewhere", report.largest_move_elsewhere},
                          {"leak", nullptr}};
  if (!report.first) return facts;
  const auto& leak = *report.first;
  facts["leak"] = {{"position", leak.position}, {"after", leak.after}, {"logit", leak.logit}, {"moved", leak.moved}};
  return facts;
}

}  // namespace

bool causality_command(const JobConfig& job, const CausalityOptions& options) {
  Checked checked(job, !options.checkpoint);
  std::int64_t randomised = 0;
  if (options.checkpoint) {
    load_weights(checked, *options.checkpoint);
  } else {
    randomised = randomise_what_is_near_zero(checked, static_cast<std::uint64_t>(job.seed));
  }
  const CausalityPlan plan{.context = job.model.context,
                           .vocabulary = job.model.vocabulary,
                           .first_position = job.model.context - checked.model->predicted(job.model.context),
                           .tries = options.tries,
                           .seed = options.seed};
  const auto report = check_causality(*checked.model, *checked.backend, checked.arena, plan);
  const auto weights = options.checkpoint
                           ? options.checkpoint->string()
                           : fmt::format("fresh weights, {} tensors that begin near zero made random", randomised);
  if (options.json) {
    auto facts = to_json(report, plan);
    facts.update({{"name", job.name}, {"kind", job.model.kind}, {"weights", weights}});
    facts["tensors_randomised"] = randomised;
    fmt::print("{}\n", json_text(facts, 2));
  } else {
    fmt::print("{} ({}): {}\n", job.name, weights, sentence(report, plan));
    if (plan.first_position > 0) {
      fmt::print("  judged from position {} on: what is before it predicts nothing\n", plan.first_position);
    }
    if (report.largest_move_elsewhere > plan.bound) {
      fmt::print("  note: logits of another sequence of the batch moved by {:.3g}: answers depend on the batch\n",
                 report.largest_move_elsewhere);
    }
  }
  return report.causal();
}

}  // namespace smlp
