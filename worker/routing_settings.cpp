#include "worker/routing_settings.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "core/error.h"
#include "data/hash_table_file.h"
#include "data/token_file.h"
#include "routing/hash_table.h"

namespace smlp {

namespace {

template <class T>
T named(const std::map<std::string, T>& all, const std::string& word) {
  const auto found = all.find(word);
  expect(found != all.end(), [&] { return "routing: the job's check let '" + word + "' through"; });
  return found->second;
}

SecondChoice second_choice(const std::string& word) {
  return named<SecondChoice>({{"all", SecondChoice::all},
                              {"sampling", SecondChoice::sampling},
                              {"random", SecondChoice::random},
                              {"threshold", SecondChoice::threshold},
                              {"none", SecondChoice::none}},
                             word);
}

// How often each id stands in the file, all ranks together.
std::vector<double> count_tokens(const TokenFile& file, const std::string& prefix, std::int64_t vocabulary,
                                 Communicator& world) {
  const std::int64_t tokens = file.tokens(), ranks = world.size(), rank = world.rank();
  std::vector<double> counts(static_cast<std::size_t>(vocabulary), 0);
  constexpr std::int64_t chunk = 1 << 16;
  std::vector<std::int32_t> ids(chunk);
  const std::int64_t chunks = (tokens + chunk - 1) / chunk;
  for (std::int64_t c = chunks * rank / ranks; c < chunks * (rank + 1) / ranks; ++c) {
    const auto part = std::span(ids).first(static_cast<std::size_t>(std::min(chunk, tokens - c * chunk)));
    file.read(c * chunk, part);
    for (const std::int32_t id : part) {
      if (id >= vocabulary) {
        throw Error(ExitCode::configuration, fmt::format("{} holds token {}, and model.vocabulary = {} ends before it",
                                                         prefix, id, vocabulary));
      }
      ++counts[static_cast<std::size_t>(id)];
    }
  }
  world.all_reduce_host(counts, Reduce::sum);
  return counts;
}

// How often training meets each id: in all files together, or as data.weights mixes them.
std::vector<double> token_frequencies(const JobConfig& job, Communicator& world) {
  std::vector<double> all(static_cast<std::size_t>(job.model.vocabulary), 0);
  for (std::size_t f = 0; f < job.data.train.size(); ++f) {
    const TokenFile file(job.data.train[f]);
    const auto counts = count_tokens(file, job.data.train[f], job.model.vocabulary, world);
    const double factor =
        job.data.weights.empty() ? 1 : job.data.weights[f] / static_cast<double>(std::max<std::int64_t>(file.tokens(), 1));
    for (std::size_t i = 0; i < all.size(); ++i) all[i] += factor * counts[i];
  }
  return all;
}

}  // namespace

std::vector<std::int32_t> make_hash_table(const JobConfig& job, Communicator& world) {
  const auto& r = job.routing;
  const std::int64_t vocabulary = job.model.vocabulary, experts = job.model.experts;
  if (r.tokens != "hash") return {};
  if (r.hash_table == "random") return random_table(vocabulary, experts, static_cast<std::uint64_t>(r.hash_seed));
  if (r.hash_table == "balanced") return balanced_table(token_frequencies(job, world), experts);
  return read_hash_table(r.hash_table, vocabulary, experts);
}

void check_tables(Backend& backend, const ParameterStore& store, const JobConfig& job, const std::string& checkpoint) {
  for (const auto& table : store.tables()) {
    if (table.moves) continue;
    std::vector<std::int32_t> found(static_cast<std::size_t>(table.view.size()));
    backend.download(table.view, found.data());
    std::int64_t differ = 0, first = -1;
    for (std::size_t id = 0; id < table.values.size(); ++id) {
      if (found[id] == table.values[id]) continue;
      if (differ++ == 0) first = static_cast<std::int64_t>(id);
    }
    if (differ == 0) continue;
    const auto at = static_cast<std::size_t>(first);
    throw Error(ExitCode::configuration,
                fmt::format("routing.hash_table = \"{}\" sends {} of {} token ids to other experts than '{}' in {} does "
                            "(token {}: to {}, not {}), and its experts have learned those; bring back the {} it was made "
                            "from, or begin a new run",
                            job.routing.hash_table, differ, found.size(), table.name, checkpoint, first, table.values[at],
                            found[at], job.routing.hash_table == "balanced" ? "data" : "file or seed"));
  }
}

RouterSettings router_settings(const JobConfig& job) {
  using Rule = Capacity::Rule;
  const auto& r = job.routing;
  const auto rule =
      named<Rule>({{"fairseq", Rule::fairseq}, {"mesh", Rule::mesh}, {"megatron", Rule::megatron}}, r.capacity_rule);
  RouterSettings settings{.tokens = r.tokens};
  SoftmaxSettings& s = settings.softmax;
  s.training = {.rule = rule, .factor = r.capacity_factor, .minimum = r.minimum_capacity};
  s.evaluation = {.rule = rule,
                  .factor = r.evaluation_capacity_factor,
                  .fraction = r.evaluation_capacity_fraction,
                  .minimum = r.minimum_capacity};
  s.gate = r.gate == "sigmoid" ? GateKind::sigmoid : GateKind::softmax;
  s.first = named<FirstChoice>(
      {{"best", FirstChoice::best}, {"sampling", FirstChoice::sampling}, {"sinkhorn", FirstChoice::sinkhorn}}, r.first_expert);
  s.bias_rate = r.expert_bias_rate;
  s.second = second_choice(r.second_expert);
  s.evaluation_second = second_choice(r.evaluation_second_expert);
  s.second_threshold = r.second_threshold;
  s.normalise = named<Normalise>({{"after", Normalise::after_dropping},
                                  {"before", Normalise::before_dropping},
                                  {"never", Normalise::never}},
                                 r.normalise);
  s.order = named<PlaceOrder>(
      {{"position", PlaceOrder::position},
       {"gate", PlaceOrder::gate},
       {"random", PlaceOrder::random},
       {"probs", PlaceOrder::choice_gate}},
      r.place_order);
  s.jitter = r.jitter;
  s.auxiliary = {.balance_weight = r.balance_weight,
                 .z_weight = r.z_weight,
                 .every_choice = r.balance_counts == "all",
                 .average_layers = r.balance_combine == "average",
                 .negative_log = r.balance_transform == "neg_log"};
  return settings;
}

}  // namespace smlp
