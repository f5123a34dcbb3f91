#include "routing/softmax_router.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "core/error.h"

namespace smlp {

namespace {

std::uint64_t key(const RouteCall& call, const std::string& stream) {
  return RandomStream(call.seed, stream).bits(static_cast<std::uint64_t>(call.step));
}

TensorView zeros(RouteCall& call, std::int64_t size) {
  const TensorView view = call.scratch.take({size}, DType::f64);
  call.backend.fill(view, 0);
  return view;
}

}  // namespace

SoftmaxRouter::SoftmaxRouter(ParameterStore& store, const std::string& name, std::int64_t experts, std::int64_t width,
                             const SoftmaxSettings& settings)
    : jitter_(name + " jitter"),
      choice_(name + " choice"),
      order_(name + " order"),
      experts_(experts),
      settings_(settings),
      scores_(store, name + ".weight", experts, width, Initial::uniform(1 / std::sqrt(static_cast<double>(width)))) {
  if (settings.choices < 1 || settings.choices > 2 || settings.choices > experts) {
    throw Error(ExitCode::configuration,
                fmt::format("routing: {} experts a token of {} experts; a softmax gate takes one or two", settings.choices,
                            experts));
  }
  if (settings.bias_rate > 0) {
    bias_ = &store.add_table(name + ".bias", experts, std::vector<std::int32_t>(static_cast<std::size_t>(experts), 0));
    bias_->moves = true;
  }
}

std::optional<std::int64_t> SoftmaxRouter::slots_of_group(bool training, std::int64_t tokens) const {
  if (!training || !settings_.training.limited()) return std::nullopt;
  return settings_.training.of(tokens, experts_, settings_.choices);
}

Normalise SoftmaxRouter::normalise() const noexcept {
  return settings_.choices == 1 ? Normalise::never : settings_.normalise;
}

double SoftmaxRouter::layer_share() const noexcept {
  return settings_.auxiliary.average_layers ? 1 / static_cast<double>(settings_.layers) : 1;
}

void SoftmaxRouter::decide(RouteCall& call, TensorView x, RoutePlan& plan) {
  plan.begin(experts_);
  if (x.rows() == 0) {
    plan.token_of_slot = call.scratch.take({0}, DType::i32);
    plan.weight = call.scratch.take({0}, x.dtype);
    return;
  }
  expect(call.group_rows > 0 && (!call.training || x.rows() % call.group_rows == 0),
         "routing: the rows are no whole number of equal groups");
  plan.repeats = settings_.choices > 1 ? Repeats::possible : Repeats::none;
  choose(call, x, plan);
  place(call, plan);
  weigh(call, plan, x.dtype);
}

void SoftmaxRouter::choose(RouteCall& call, TensorView x, RoutePlan& plan) {
  const std::int64_t rows = x.rows();
  const DType wide = wide_type(x.dtype);
  if (call.training && settings_.jitter > 0) {
    const TensorView shaken = call.scratch.take({rows, x.width()}, x.dtype);
    call.backend.jitter(x, settings_.jitter, key(call, jitter_), call.first_row, shaken);
    x = shaken;
  }
  gates_ = call.scratch.take({rows, experts_}, wide);
  log_sum_ = call.scratch.take({rows}, DType::f64);
  expert_ = call.scratch.take({rows, settings_.choices}, DType::i32);
  frequency_ = {};
  const bool losses = call.training && call.auxiliary;
  const std::int64_t groups = call.groups(rows);
  if (losses) frequency_ = call.scratch.take({groups, experts_}, DType::f64);
  const FirstChoice first = call.training ? settings_.first : FirstChoice::best;
  if (first == FirstChoice::sinkhorn) plan.rounds = call.rounds ? call.rounds : call.scratch.take({groups}, DType::i32);
  const bool keep_logits = losses && settings_.gate == GateKind::sigmoid;
  if (keep_logits) logits_ = call.scratch.take({rows, experts_}, wide);
  const Arena::Frame frame(call.scratch);
  const TensorView logits = keep_logits ? logits_ : call.scratch.take({rows, experts_}, wide);
  scores_.forward(call, x, logits);
  call.backend.choose_experts({.logits = logits,
                               .kind = settings_.gate,
                               .first = first,
                               .second = call.training ? settings_.second : settings_.evaluation_second,
                               .threshold = settings_.second_threshold,
                               .compare_normalised = settings_.normalise == Normalise::before_dropping,
                               .noise = {key(call, choice_), call.first_row},
                               .bias = bias_ != nullptr ? bias_->view : TensorView{},
                               .bias_unit = settings_.bias_rate,
                               .group_rows = call.group_rows,
                               .rounds = plan.rounds,
                               .gates = gates_,
                               .log_sum = log_sum_,
                               .expert = expert_});
  if (losses) {
    call.backend.balance_of_choices({.gates = gates_,
                                     .log_sum = log_sum_,
                                     .expert = expert_,
                                     .kind = settings_.gate,
                                     .group_rows = call.group_rows,
                                     .every_choice = settings_.auxiliary.every_choice,
                                     .share = layer_share(),
                                     .frequency = frequency_,
                                     .add_to = call.auxiliary});
  }
}

void SoftmaxRouter::place(RouteCall& call, RoutePlan& plan) {
  const std::int64_t rows = gates_.rows();
  const Capacity& capacity = call.training ? settings_.training : settings_.evaluation;
  const bool drawn = settings_.order == PlaceOrder::random && !call.training;
  const auto order = drawn ? PlaceOrder::position : settings_.order;
  slot_ = call.scratch.take({rows, settings_.choices}, DType::i32);
  plan.dropped = call.dropped ? call.dropped : zeros(call, 1);
  PlaceTokens places{.expert = expert_,
                     .experts = experts_,
                     .group_rows = call.group_rows,
                     .order = order,
                     .gates = gates_,
                     .noise = {key(call, order_), call.first_row},
                     .slot = slot_,
                     .dropped = plan.dropped};
  if (capacity.limited()) {
    places.capacity = capacity.of(call.group_rows, experts_, settings_.choices);
    places.last_capacity = capacity.of(std::max<std::int64_t>(rows % call.group_rows, 1), experts_, settings_.choices);
  }
  plan.no_empty_slot = !slots_of_group(call.training, call.group_rows).has_value();
  if (!plan.no_empty_slot) {
    const std::int64_t groups = call.groups(rows);
    std::fill(plan.rows_of_expert.begin(), plan.rows_of_expert.end(), groups * places.capacity);
    plan.taken = places.taken = call.taken ? call.taken : zeros(call, experts_);
    plan.token_of_slot = places.token_of_slot = call.scratch.take({experts_ * groups * places.capacity}, DType::i32);
    call.backend.place_tokens(places);
    return;
  }
  places.token_of_slot = call.scratch.take({rows * settings_.choices}, DType::i32);
  places.rows_of_expert = plan.rows_of_expert;
  call.backend.place_tokens(places);
  std::int64_t slots = 0;
  for (const std::int64_t count : plan.rows_of_expert) slots += count;
  plan.token_of_slot = places.token_of_slot.row_range(0, slots);
}

void SoftmaxRouter::weigh(RouteCall& call, RoutePlan& plan, DType type) {
  plan.weight = call.scratch.take({plan.slots()}, type);
  if (plan.slots() == 0) return;
  const Arena::Frame frame(call.scratch);
  const TensorView wide = type == gates_.dtype ? plan.weight : call.scratch.take({plan.slots()}, gates_.dtype);
  call.backend.weigh_slots({.gates = gates_, .expert = expert_, .slot = slot_, .normalise = normalise(), .weight = wide});
  if (type != gates_.dtype) call.backend.copy(wide, plan.weight);
}

void SoftmaxRouter::backward(RouteCall& call, const RoutePlan& plan, TensorView dweight, TensorView residual,
                             TensorView dx) {
  if (dx.rows() == 0) return;
  const Arena::Frame frame(call.scratch);
  const TensorView dlogits = call.scratch.take({dx.rows(), experts_}, gates_.dtype);
  ChoicesBackward back{.gates = gates_,
                       .expert = expert_,
                       .slot = slot_,
                       .kind = settings_.gate,
                       .normalise = normalise(),
                       .dlogits = dlogits};
  if (plan.slots() > 0) back.dweight = dweight;
  if (frequency_) {
    back.frequency = frequency_;
    back.log_sum = log_sum_;
    back.logits = logits_;
    back.auxiliary = call.auxiliary;
    back.row_scale = call.row_scale;
    back.balance_weight = settings_.auxiliary.balance_weight * layer_share();
    back.negative_log = settings_.auxiliary.negative_log;
    back.z_weight = settings_.auxiliary.z_weight;
  }
  call.backend.choices_backward(back);
  if (settings_.jitter == 0) return scores_.backward(call, dlogits, residual, dx);
  if (!residual) {
    scores_.backward(call, dlogits, {}, dx);
    return call.backend.jitter(dx, settings_.jitter, key(call, jitter_), call.first_row, dx);
  }
  const TensorView dshaken = call.scratch.take(dx.shape, dx.dtype);
  scores_.backward(call, dlogits, {}, dshaken);
  call.backend.jitter(dshaken, settings_.jitter, key(call, jitter_), call.first_row, dshaken);
  call.backend.add(dshaken, residual, dx);
}

}  // namespace smlp
