#include "worker/routing_settings.h"

#include <map>

#include "core/error.h"

namespace smlp {

namespace {

template <class T>
T named(const std::map<std::string, T>& all, const std::string& word) {
  const auto found = all.find(word);
  expect(found != all.end(), "routing: the job's check let '" + word + "' through");
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

}  // namespace

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
  s.sample_first = r.first_expert == "sampling";
  s.second = second_choice(r.second_expert);
  s.evaluation_second = second_choice(r.evaluation_second_expert);
  s.second_threshold = r.second_threshold;
  s.normalise_before = r.normalise == "before";
  s.order = named<PlaceOrder>(
      {{"position", PlaceOrder::position}, {"gate", PlaceOrder::gate}, {"random", PlaceOrder::random}}, r.place_order);
  s.jitter = r.jitter;
  s.auxiliary = {.balance_weight = r.balance_weight,
                 .z_weight = r.z_weight,
                 .every_choice = r.balance_counts == "all",
                 .average_layers = r.balance_combine == "average",
                 .negative_log = r.balance_transform == "neg_log"};
  return settings;
}

}  // namespace smlp
