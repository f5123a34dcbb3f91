#include "layers/feedforward_experts.h"

#include "layers/norm.h"

namespace smlp {

FeedforwardExperts::FeedforwardExperts(ParameterStore& store, const std::string& name, std::int64_t width,
                                       std::int64_t hidden, Activation activation,
                                       const ExpertExchange& exchange)
    : hidden_(hidden),
      activation_(activation),
      norm_weight_(store.add(exchange.slice_of(
          {.name = name + ".norm.weight", .shape = {width}, .initial = Initial::ones(), .decay = false}))),
      norm_bias_(store.add(
          exchange.slice_of({.name = name + ".norm.bias", .shape = {width}, .initial = {}, .decay = false}))),
      in_weight_(store.add(exchange.slice_of({.name = name + ".in.weight",
                                              .shape = {hidden, width},
                                              .initial = Initial::xavier(width, hidden)}))),
      in_bias_(store.add(
          exchange.slice_of({.name = name + ".in.bias", .shape = {hidden}, .initial = {}, .decay = false}))),
      out_weight_(store.add(exchange.slice_of(
          {.name = name + ".out.weight", .shape = {width, hidden}, .initial = Initial::zeros()}))),
      out_bias_(store.add(
          exchange.slice_of({.name = name + ".out.bias", .shape = {width}, .initial = {}, .decay = false}))) {
}

template <class Body>
void FeedforwardExperts::each_expert(const Body& body) const {
  std::int64_t first = 0;
  for (std::size_t e = 0; e < rows_.size(); ++e) {
    if (rows_[e] > 0) body(static_cast<std::int64_t>(e), first, rows_[e]);
    first += rows_[e];
  }
}

void FeedforwardExperts::forward(Context& c, std::span<const std::int64_t> rows_of_expert, TensorView x,
                                 TensorView y) {
  rows_.assign(rows_of_expert.begin(), rows_of_expert.end());
  x_ = x;
  const std::int64_t rows = x.rows();
  if (rows == 0) return;
  mean_ = c.scratch.take({rows, 1}, wide_type(x.dtype));
  inverse_deviation_ = c.scratch.take({rows, 1}, wide_type(x.dtype));
  normed_ = c.scratch.take({rows, x.width()}, x.dtype);
  each_expert([&](std::int64_t e, std::int64_t first, std::int64_t count) {
    c.backend.layer_norm(x.row_range(first, count), norm_weight_.value.slice(e), norm_bias_.value.slice(e), 1,
                         normed_.row_range(first, count), mean_.row_range(first, count),
                         inverse_deviation_.row_range(first, count));
  });
  pre_activation_ = c.training() ? c.scratch.take({rows, hidden_}, x.dtype) : TensorView{};
  activated_ = c.scratch.take({rows, hidden_}, x.dtype);
  c.backend.matmul_grouped({.a = normed_,
                            .b = in_weight_.value,
                            .out = activated_,
                            .transpose_b = true,
                            .bias = in_bias_.value,
                            .activation = activation_,
                            .pre_activation = pre_activation_},
                           rows_);
  c.backend.matmul_grouped(
      {.a = activated_, .b = out_weight_.value, .out = y, .transpose_b = true, .bias = out_bias_.value},
      rows_);
}

void FeedforwardExperts::backward(Context& c, TensorView dy, TensorView dx) {
  if (dy.rows() == 0) return;
  const Arena::Frame frame(c.scratch);
  const TensorView dhidden = c.scratch.take({dy.rows(), hidden_}, dy.dtype);
  c.backend.matmul_grouped(
      {.a = dy, .b = activated_, .out = out_weight_.grad, .transpose_a = true, .accumulate = true}, rows_);
  c.backend.matmul_grouped({.a = dy, .b = out_weight_.value, .out = dhidden}, rows_);
  c.backend.activate_backward(activation_, pre_activation_, dhidden, dhidden);
  c.backend.matmul_grouped(
      {.a = dhidden, .b = normed_, .out = in_weight_.grad, .transpose_a = true, .accumulate = true}, rows_);
  each_expert([&](std::int64_t e, std::int64_t first, std::int64_t count) {
    c.backend.sum_rows(dy.row_range(first, count), out_bias_.grad.slice(e));
    c.backend.sum_rows(dhidden.row_range(first, count), in_bias_.grad.slice(e));
  });
  const TensorView dnormed = normed_;  // in its place: it was read for the last time
  c.backend.matmul_grouped({.a = dhidden, .b = in_weight_.value, .out = dnormed}, rows_);
  each_expert([&](std::int64_t e, std::int64_t first, std::int64_t count) {
    c.backend.layer_norm_backward(x_.row_range(first, count), norm_weight_.value.slice(e), 1,
                                  mean_.row_range(first, count), inverse_deviation_.row_range(first, count),
                                  dnormed.row_range(first, count), {}, dx.row_range(first, count),
                                  norm_weight_.grad.slice(e), norm_bias_.grad.slice(e));
  });
}

}  // namespace smlp
