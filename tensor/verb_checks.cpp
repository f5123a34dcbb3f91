#include "tensor/verb_checks.h"

#include <cmath>
#include <numeric>

namespace smlp {

SpatialSizes spatial_sizes(const char* verb, const SpatialProduct& p) {
  const Shape &w = p.weight.shape, &v = p.v.shape;
  require(w.rank() == 3 && v.rank() == 3 && p.out.shape == v, verb,
          "the weight must be [groups, length, length], v and out [sequences, length, channels] alike");
  require(w[1] == w[2] && w[1] >= v[1], verb, "the weight is shorter than the sequences");
  require(w[0] > 0 && v[2] % w[0] == 0, verb, "the groups do not divide the channels");
  same_type(verb, {p.v, p.out});
  return {w[0], v[0], v[1], v[2] / w[0]};
}

void check_gate(const char* verb, const Gating& g, std::initializer_list<TensorView> others) {
  const Shape &shape = g.u.shape, &bias = g.bias.shape;
  same_type(verb, {g.u, g.z, g.bias});
  same_shape(verb, {g.u, g.z});
  for (const TensorView& other : others) {
    same_type(verb, {g.u, other});
    same_shape(verb, {g.u, other});
  }
  require(shape.rank() == 3 && bias.rank() == 2 && bias[1] == shape[1], verb,
          "views must be [sequences, length, channels] and the bias [groups, length]");
  require(bias[0] > 0 && shape[2] % bias[0] == 0, verb, "the groups do not divide the channels");
}

void check_norm(const char* verb, const Normalisation& n) {
  require(n.groups > 0 && n.x.width() % n.groups == 0, verb, "the groups do not divide the channels");
  const DType wide = wide_type(n.x.dtype);
  vector_of(verb, "mean", n.mean, n.x.rows() * n.groups, wide);
  vector_of(verb, "inverse_deviation", n.inverse_deviation, n.x.rows() * n.groups, wide);
  const std::int64_t lines = norm_lines(n);
  require(lines > 0 && n.x.rows() % lines == 0, verb, "the lines of the weight do not divide the rows");
  if (n.weight) vector_of(verb, "weight", n.weight, lines * n.x.width(), n.x.dtype);
  if (n.bias) vector_of(verb, "bias", n.bias, lines * n.x.width(), n.x.dtype);
}

std::int64_t norm_lines(const Normalisation& n) { return n.weight ? n.weight.rows() : n.bias ? n.bias.rows() : 1; }

TensorView run_of_rows(const TensorView& x, std::int64_t line, std::int64_t lines) {
  const std::int64_t rows = x.rows() / lines;
  return x.matrix().row_range(line * rows, rows);
}

Normalisation norm_of_line(const Normalisation& n, std::int64_t line, std::int64_t lines) {
  const Shape sums = {n.x.rows(), n.groups};
  return {.x = run_of_rows(n.x, line, lines),
          .weight = n.weight ? n.weight.slice(line) : TensorView{},
          .bias = n.bias ? n.bias.slice(line) : TensorView{},
          .groups = n.groups,
          .mean = run_of_rows(n.mean.reshaped(sums), line, lines),
          .inverse_deviation = run_of_rows(n.inverse_deviation.reshaped(sums), line, lines),
          .activation = n.activation};
}

void check_norm_backward(const Normalisation& n, const TensorView& dy, const TensorView& residual, const TensorView& dx,
                         const TensorView& dweight, const TensorView& dbias) {
  const char* verb = "layer_norm_backward";
  same_shape(verb, {n.x, dy, dx});
  same_type(verb, {n.x, dy, dx, residual});
  if (residual) same_shape(verb, {n.x, residual});
  const std::int64_t sums = norm_lines(n) * n.x.width();
  if (dweight) vector_of(verb, "dweight", dweight, sums, wide_type(n.x.dtype));
  if (dbias) vector_of(verb, "dbias", dbias, sums, wide_type(n.x.dtype));
}

double AttentionSizes::scale() const { return 1 / std::sqrt(static_cast<double>(width)); }

AttentionSizes attention_sizes(const char* verb, const Attention& a) {
  const Shape& shape = a.query.shape;
  require(shape.rank() == 3, verb, "query, key, value and out must be [sequences, length, channels]");
  same_shape(verb, {a.query, a.key, a.value, a.out});
  same_type(verb, {a.query, a.key, a.value, a.out});
  require(a.heads > 0 && shape[2] % a.heads == 0, verb, "the heads do not divide the channels");
  vector_of(verb, "log_sum", a.log_sum, shape[0] * a.heads * shape[1], wide_type(a.query.dtype));
  return {shape[0], shape[1], a.heads, shape[2] / a.heads};
}

void check_matmul(const Matmul& m) {
  const char* verb = "matmul";
  same_type(verb, {m.a, m.b, m.bias});
  const Matrix a = as_matrix(m.a), b = as_matrix(m.b), out = as_matrix(m.out);
  const std::int64_t k = m.transpose_a ? a.rows : a.width;
  require((m.transpose_b ? b.width : b.rows) == k && (m.transpose_a ? a.width : a.rows) == out.rows &&
              (m.transpose_b ? b.rows : b.width) == out.width,
          verb, "the shapes of a, b and out do not fit");
  require(!m.accumulate || (!m.bias && !m.residual && m.activation == Activation::none), verb,
          "an accumulating product has no bias, residual or activation");
  if (m.bias) vector_of(verb, "bias", m.bias, out.width, m.a.dtype);
  if (m.residual) {
    same_shape(verb, {m.out, m.residual});
    same_type(verb, {m.out, m.residual});
  }
  if (m.activation != Activation::none && m.pre_activation) {
    same_shape(verb, {m.out, m.pre_activation});
    same_type(verb, {m.out, m.pre_activation});
  }
  if (m.activation_backward) {
    require(!m.accumulate && !m.bias && !m.residual && (m.activation == Activation::none || m.pre_activation), verb,
            "a product through an activation's gradient reads pre_activation, and has no bias, residual or accumulate");
  }
  if (m.bias_gradient) {
    require(m.transpose_a, verb, "a bias_gradient comes with a weight gradient: transpose_a");
    vector_of(verb, "bias_gradient", m.bias_gradient, out.rows, wide_type(m.a.dtype));
  }
}

Matmul expert_product(const Matmul& m, std::int64_t expert, std::int64_t first, std::int64_t rows) {
  const auto part = [&](const TensorView& view) { return view ? view.row_range(first, rows) : view; };
  const auto of_expert = [&](const TensorView& view) { return view ? view.slice(expert) : view; };
  Matmul one = m;
  one.a = part(m.a);
  one.b = m.transpose_a ? part(m.b) : of_expert(m.b);
  one.out = m.transpose_a ? of_expert(m.out) : part(m.out);
  one.bias = of_expert(m.bias);
  one.residual = part(m.residual);
  one.pre_activation = part(m.pre_activation);
  one.bias_gradient = of_expert(m.bias_gradient);
  return one;
}

void check_matmul_grouped(const Matmul& m, std::span<const std::int64_t> rows) {
  const char* verb = "matmul_grouped";
  const auto experts = std::ssize(rows);
  for (const TensorView& stacked : {m.transpose_a ? m.out : m.b, m.bias, m.bias_gradient}) {
    require(!stacked || stacked.shape[0] == experts, verb, "what is stacked must have a part for every expert");
  }
  if (m.transpose_a) {
    const bool alone = !m.bias && !m.residual && m.activation == Activation::none;
    require(alone, verb, "a weight gradient has no bias, residual or activation");
  }
  if (experts == 0) return;
  const auto all = std::accumulate(rows.begin(), rows.end(), std::int64_t{0});
  require(all == m.a.rows(), verb, "every row must be some expert's");
  check_matmul(expert_product(m, 0, 0, all));
}

void check_row_blocks(const Matrix& from, const Matrix& to, std::span<const RowBlock> blocks) {
  require(from.width == to.width, "copy_rows", "rows of different widths");
  for (const auto& block : blocks) {
    require(block.from >= 0 && block.to >= 0 && block.rows >= 0 && block.from + block.rows <= from.rows &&
                block.to + block.rows <= to.rows,
            "copy_rows", "a block lies outside of its view");
  }
}

void check_cross_entropy(const TensorView& logits, const TensorView& targets, const TensorView& row_loss,
                         const TensorView& scale, bool gradient) {
  const char* verb = "cross_entropy";
  const std::int64_t rows = as_matrix(logits).rows;
  vector_of(verb, "targets", targets, rows, DType::i32);
  vector_of(verb, "row_loss", row_loss, rows, DType::f64);
  if (gradient) vector_of(verb, "scale", scale, 1, DType::f64);
}

void check_scores(const char* verb, const TensorView& scores) {
  require(scores.shape.rank() == 2 && scores.shape[1] > 0, verb, "scores must be [tokens, experts]");
}

namespace {

void one_count_an_expert(const char* verb, std::span<const std::int64_t> rows_of_expert, std::int64_t experts) {
  require(std::ssize(rows_of_expert) == experts, verb, "rows_of_expert must hold one count an expert");
}

std::int64_t whole_groups(const char* verb, std::int64_t tokens, std::int64_t group_rows) {
  require(group_rows > 0 && tokens % group_rows == 0, verb, "the tokens are no whole number of groups");
  return tokens / group_rows;
}

void check_gates(const char* verb, const TensorView& gates, const TensorView& expert) {
  require(gates.dtype == DType::f64 || gates.dtype == DType::f32, verb, "gates must be f32 or f64");
  require(gates.shape.rank() == 2 && gates.shape[1] > 0, verb, "gates must be [tokens, experts]");
  require(expert.shape.rank() == 2 && expert.shape[0] == gates.shape[0] && expert.shape[1] >= 1 && expert.shape[1] <= 2,
          verb, "there must be one or two choices a token");
  require(expert.shape[1] <= gates.shape[1], verb, "two choices need two experts");
  vector_of(verb, "expert", expert, expert.size(), DType::i32);
}

}  // namespace

BalancedSizes balanced_sizes(const TensorView& scores, std::int64_t groups, const TensorView& token_of_slot,
                             const TensorView& rounds) {
  const char* verb = "assign_balanced";
  check_scores(verb, scores);
  require(groups > 0 && scores.shape[0] % groups == 0, verb, "the groups do not divide the tokens");
  const std::int64_t tokens = scores.shape[0] / groups, experts = scores.shape[1];
  const std::int64_t capacity = (tokens + experts - 1) / experts;
  vector_of(verb, "token_of_slot", token_of_slot, experts * groups * capacity, DType::i32);
  vector_of(verb, "rounds", rounds, groups, DType::i32);
  return {tokens, experts, capacity};
}

void check_assign_greedy(const TensorView& scores, const TensorView& token_of_slot,
                         std::span<const std::int64_t> rows_of_expert) {
  const char* verb = "assign_greedy";
  check_scores(verb, scores);
  vector_of(verb, "token_of_slot", token_of_slot, scores.shape[0], DType::i32);
  one_count_an_expert(verb, rows_of_expert, scores.shape[1]);
}

void check_slots(const char* verb, const TensorView& scores, const TensorView& alpha, const TensorView& token_of_slot,
                 std::span<const std::int64_t> rows_of_expert) {
  check_scores(verb, scores);
  one_count_an_expert(verb, rows_of_expert, scores.shape[1]);
  const std::int64_t slots = std::accumulate(rows_of_expert.begin(), rows_of_expert.end(), std::int64_t{0});
  vector_of(verb, "token_of_slot", token_of_slot, slots, DType::i32);
  vector_of(verb, "alpha", alpha, slots, alpha.dtype);
}

void check_look_up(const TensorView& table, const TensorView& index, const TensorView& out) {
  const char* verb = "look_up";
  vector_of(verb, "table", table, table.size(), DType::i32);
  vector_of(verb, "index", index, index.size(), DType::i32);
  vector_of(verb, "out", out, index.size(), DType::i32);
}

void check(const ChooseExperts& c) {
  const char* verb = "choose_experts";
  same_shape(verb, {c.logits, c.gates});
  same_type(verb, {c.logits, c.gates});
  check_gates(verb, c.gates, c.expert);
  const std::int64_t tokens = c.logits.shape[0], experts = c.logits.shape[1];
  vector_of(verb, "log_sum", c.log_sum, tokens, DType::f64);
  if (c.bias) {
    vector_of(verb, "bias", c.bias, experts, DType::i32);
    const bool noisy_second = c.expert.shape[1] == 2 && c.second == SecondChoice::sampling;
    require(c.first == FirstChoice::best && !noisy_second, verb, "a bias goes with no noise and no shares");
  }
  if (c.first == FirstChoice::sinkhorn) {
    vector_of(verb, "rounds", c.rounds, whole_groups(verb, tokens, c.group_rows), DType::i32);
  }
}

void check(const BalanceOfChoices& b) {
  const char* verb = "balance_of_choices";
  check_gates(verb, b.gates, b.expert);
  const std::int64_t tokens = b.gates.shape[0], groups = whole_groups(verb, tokens, b.group_rows);
  vector_of(verb, "log_sum", b.log_sum, tokens, DType::f64);
  vector_of(verb, "frequency", b.frequency, groups * b.gates.shape[1], DType::f64);
  vector_of(verb, "add_to", b.add_to, groups * 2, DType::f64);
}

void check(const PlaceTokens& p) {
  const char* verb = "place_tokens";
  require(p.expert.shape.rank() == 2 && p.experts > 0 && p.group_rows > 0, verb, "choices must be [tokens, choices]");
  vector_of(verb, "expert", p.expert, p.expert.size(), DType::i32);
  if (p.slot) vector_of(verb, "slot", p.slot, p.expert.size(), DType::i32);
  if (p.dropped) vector_of(verb, "dropped", p.dropped, 1, DType::f64);
  if (p.taken) vector_of(verb, "taken", p.taken, p.experts, DType::f64);
  const std::int64_t tokens = p.expert.shape[0];
  std::int64_t slots = p.expert.size();
  if (p.rows_of_expert.empty()) {
    require(tokens % p.group_rows == 0 && p.capacity >= 0, verb, "a fixed layout needs equal groups and a capacity");
    slots = p.experts * (tokens / p.group_rows) * p.capacity;
  } else {
    one_count_an_expert(verb, p.rows_of_expert, p.experts);
  }
  vector_of(verb, "token_of_slot", p.token_of_slot, slots, DType::i32);
  if (p.order == PlaceOrder::gate || p.order == PlaceOrder::choice_gate) {
    const bool fit = p.gates.shape.rank() == 2 && p.gates.shape[0] == tokens && p.gates.shape[1] == p.experts;
    require(fit, verb, "the order by gates needs the gates");
  }
}

void check(const WeighSlots& w) {
  const char* verb = "weigh_slots";
  check_gates(verb, w.gates, w.expert);
  vector_of(verb, "slot", w.slot, w.expert.size(), DType::i32);
  vector_of(verb, "weight", w.weight, w.weight.size(), w.gates.dtype);
}

void check(const ChoicesBackward& c) {
  const char* verb = "choices_backward";
  same_shape(verb, {c.gates, c.dlogits});
  same_type(verb, {c.gates, c.dlogits, c.dweight});
  check_gates(verb, c.gates, c.expert);
  vector_of(verb, "slot", c.slot, c.expert.size(), DType::i32);
  if (c.dweight) vector_of(verb, "dweight", c.dweight, c.dweight.size(), c.gates.dtype);
  if (!c.frequency) return;
  const std::int64_t tokens = c.gates.shape[0], experts = c.gates.shape[1], groups = c.frequency.size() / experts;
  require(groups > 0 && tokens % groups == 0, verb, "the tokens are no whole number of groups");
  vector_of(verb, "frequency", c.frequency, groups * experts, DType::f64);
  vector_of(verb, "log_sum", c.log_sum, tokens, DType::f64);
  vector_of(verb, "auxiliary", c.auxiliary, groups * 2, DType::f64);
  vector_of(verb, "row_scale", c.row_scale, 1, DType::f64);
  if (c.kind == GateKind::sigmoid && c.z_weight != 0) {
    same_shape(verb, {c.gates, c.logits});
    same_type(verb, {c.gates, c.logits});
  }
}

}  // namespace smlp
