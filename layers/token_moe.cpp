#include "layers/token_moe.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/error.h"

namespace smlp {

TokenMoe::TokenMoe(std::string name, std::int64_t block, std::int64_t group_sequences, double dropout,
                   TokenMoeParts parts, ExpertExchange& exchange)
    : block_(block),
      group_sequences_(group_sequences),
      parts_(std::move(parts)),
      group_(exchange),
      exchange_(exchange),
      shuffle_(name, parts_.shuffle, exchange),
      dropout_(std::move(name), dropout) {}

RouteCall TokenMoe::call(Context& c) const {
  const auto mine = [this](const TensorView& of_blocks) { return of_blocks ? of_blocks.slice(block_) : TensorView{}; };
  return {.backend = c.backend,
          .scratch = c.scratch,
          .training = c.training(),
          .group_rows = group_sequences_ * c.length,
          .tokens = c.tokens,
          .seed = c.seed,
          .step = c.step,
          .first_row = c.first_sequence * c.length,
          .auxiliary = c.auxiliary,
          .row_scale = c.auxiliary_scale,
          .rounds = mine(c.counts.rounds),
          .taken = mine(c.counts.taken),
          .dropped = mine(c.counts.dropped)};
}

void TokenMoe::make_plan(Context& c, TensorView x) {
  expect(!c.training() || c.sequences % group_sequences_ == 0, [&] {
    return fmt::format("a micro-batch of {} sequences is no whole number of routing groups of {}", c.sequences,
                       group_sequences_);
  });
  RouteCall route = call(c);
  parts_.router->decide(route, x, plan_);
  exchange_.prepare(c, plan_.rows_of_expert,
                    parts_.router->slots_of_group(c.training(), group_sequences_ * group_.length()),
                    group_sequences_);
  if (c.reports == nullptr) return;
  report(c);
  if (c.compare_routing && !c.training()) compare_with_training(c, x);
}

// The router keeps what its last plan saw for a backward pass; an evaluation has none.
void TokenMoe::compare_with_training(Context& c, TensorView x) {
  if (x.rows() == 0 || c.sequences % group_sequences_ != 0) return;
  const Arena::Frame frame(c.scratch);
  RouteCall route = call(c);
  route.training = true;
  parts_.router->decide(route, x, trained_);
  auto& report = c.reports->back();
  report.compared = x.rows();
  report.alike = comparison_.tokens_sent_alike(c.backend, plan_, trained_, x.rows());
}

void TokenMoe::report(Context& c) {
  RoutingReport report{.block = block_, .bias = parts_.router->bias()};
  if (plan_.no_empty_slot) report.expert_tokens = plan_.rows_of_expert;
  if (!plan_.no_empty_slot && !plan_.taken) report.expert_tokens = count_tokens(c);
  c.reports->push_back(report);
}

// Where experts do not divide the tokens that are assigned to them in balance. Waits.
std::span<const std::int64_t> TokenMoe::count_tokens(Context& c) {
  tokens_.assign(plan_.rows_of_expert.begin(), plan_.rows_of_expert.end());
  token_of_slot_.resize(static_cast<std::size_t>(plan_.slots()));
  if (plan_.slots() > 0) c.backend.download(plan_.token_of_slot, token_of_slot_.data());
  auto token = token_of_slot_.begin();
  for (auto& tokens : tokens_) {
    const auto end = token + tokens;
    tokens -= std::count(token, end, -1);
    token = end;
  }
  return tokens_;
}

void TokenMoe::dispatch(Context& c, TensorView tokens, TensorView weight, TensorView rows) {
  if (exchange_.direct()) {
    if (rows.rows() > 0) c.backend.gather_rows(tokens, plan_.token_of_slot, 1, weight, rows);
    return;
  }
  const Arena::Frame frame(c.scratch);
  const TensorView slots = c.scratch.take({plan_.slots(), tokens.width()}, tokens.dtype);
  if (slots.rows() > 0) c.backend.gather_rows(tokens, plan_.token_of_slot, 1, weight, slots);
  exchange_.to_experts(c, slots, rows);
}

TensorView TokenMoe::collect(Context& c, TensorView rows) {
  if (exchange_.direct()) return rows;
  const TensorView slots = c.scratch.take({plan_.slots(), rows.width()}, rows.dtype);
  exchange_.to_tokens(c, rows, slots);
  return slots;
}

void TokenMoe::forward(Context& c, TensorView x, TensorView y) {
  TensorView n = x;
  if (parts_.norm && x.rows() > 0) {
    n = c.scratch.take({x.rows(), x.width()}, x.dtype);
    parts_.norm->forward(c, x, n);
  }
  if (shuffle_.active(c)) {
    shuffle_.draw(c);
    const TensorView mixed = c.scratch.take(n.shape, n.dtype);
    shuffle_.mix(c, n, mixed);
    n = mixed;
  }
  make_plan(c, n);
  const Shape at_experts{exchange_.expert_rows(), x.width()};
  const TensorView rows = c.scratch.take(at_experts, x.dtype);
  dispatch(c, n, {}, rows);
  const TensorView out = c.scratch.take(at_experts, x.dtype);
  std::span<const std::int32_t> places;
  if (parts_.experts->need_places()) places = exchange_.places(c, plan_.token_of_slot);
  parts_.experts->forward(c, exchange_.rows_of_local_expert(), places, rows, out);
  answers_ = collect(c, out);
  if (x.rows() > 0) join(c, x, y);
}

void TokenMoe::join(Context& c, TensorView x, TensorView y) {
  const bool dropping = dropout_.active(c), mixed = shuffle_.active(c);
  if (!dropping && !mixed) {
    c.backend.copy(x, y);
    return c.backend.scatter_add_rows(answers_, plan_.token_of_slot, plan_.repeats, 1, plan_.weight, y);
  }
  const Arena::Frame frame(c.scratch);
  const TensorView branch = mixed ? c.scratch.take(y.shape, y.dtype) : y;
  c.backend.fill(branch, 0);
  c.backend.scatter_add_rows(answers_, plan_.token_of_slot, plan_.repeats, 1, plan_.weight, branch);
  if (mixed) shuffle_.unmix(c, branch, y);
  dropout_.join(c, y, x, y);
}

void TokenMoe::backward(Context& c, TensorView dy, TensorView dx) {
  const Arena::Frame frame(c.scratch);
  const bool mixed = shuffle_.active(c);
  TensorView dbranch = dropout_.gradient(c, dy);
  if (mixed) {
    const TensorView dmixed = c.scratch.take(dy.shape, dy.dtype);
    shuffle_.mix(c, dbranch, dmixed);
    dbranch = dmixed;
  }
  const TensorView drows = c.scratch.take({exchange_.expert_rows(), dy.width()}, dy.dtype);
  dispatch(c, dbranch, plan_.weight, drows);
  parts_.experts->backward(c, drows, drows);
  const TensorView dslots = collect(c, drows);
  if (dy.rows() == 0) return;
  TensorView dweight;
  if (plan_.weight) {
    dweight = c.scratch.take({plan_.slots()}, wide_type(dbranch.dtype));
    c.backend.row_dots(answers_, dbranch, plan_.token_of_slot, dweight);
  }
  RouteCall route = call(c);
  const bool residual = !parts_.norm && !mixed;
  const TensorView dinput = mixed ? c.scratch.take(dx.shape, dx.dtype) : dx;
  parts_.router->backward(route, plan_, dweight, residual ? dy : TensorView{}, dinput);
  c.backend.scatter_add_rows(dslots, plan_.token_of_slot, plan_.repeats, 1, {}, dinput);
  if (mixed) shuffle_.unmix(c, dinput, dx);
  if (mixed && !parts_.norm) c.backend.add(dx, dy, dx);
  if (parts_.norm) parts_.norm->backward(c, dx, dy, dx);
}

}  // namespace smlp
