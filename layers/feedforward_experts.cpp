#include "layers/feedforward_experts.h"

namespace smlp {

namespace {
std::optional<ExpertNorm> make_norm(bool wanted, ParameterStore& store, const std::string& name,
                                    std::int64_t width, const ExpertExchange& exchange) {
  if (!wanted) return std::nullopt;
  return ExpertNorm(store, name + ".norm", width, exchange);
}
}  // namespace

FeedforwardExperts::FeedforwardExperts(ParameterStore& store, const std::string& name, std::int64_t width,
                                       std::int64_t hidden, Activation activation, bool own_norm,
                                       const ExpertExchange& exchange)
    : hidden_(hidden),
      activation_(activation),
      norm_(make_norm(own_norm, store, name, width, exchange)),
      in_(store, name + ".in", width, hidden, Initial::xavier(width, hidden), exchange),
      out_(store, name + ".out", hidden, width, own_norm ? Initial::zeros() : Initial::xavier(hidden, width),
           exchange) {}

void FeedforwardExperts::forward(Context& c, ExpertRows rows, std::span<const std::int32_t>, TensorView x,
                                 TensorView y) {
  rows_.assign(rows.begin(), rows.end());
  if (x.rows() == 0) return;
  normed_ = x;
  if (norm_) {
    normed_ = c.scratch.take({x.rows(), x.width()}, x.dtype);
    norm_->forward(c, rows_, x, normed_);
  }
  pre_activation_ = c.training() ? c.scratch.take({x.rows(), hidden_}, x.dtype) : TensorView{};
  activated_ = c.scratch.take({x.rows(), hidden_}, x.dtype);
  in_.forward(c, rows_, normed_, activated_, {.activation = activation_, .pre_activation = pre_activation_});
  out_.forward(c, rows_, activated_, y);
}

void FeedforwardExperts::backward(Context& c, TensorView dy, TensorView dx) {
  if (dy.rows() == 0) return;
  const Arena::Frame frame(c.scratch);
  const TensorView dhidden = c.scratch.take({dy.rows(), hidden_}, dy.dtype);
  out_.add_gradients(c, rows_, activated_, dy);
  out_.backward_input(c, rows_, dy, dhidden, {activation_, pre_activation_});
  in_.add_gradients(c, rows_, normed_, dhidden);
  if (!norm_) return in_.backward_input(c, rows_, dhidden, dx);
  const TensorView dnormed = normed_;  // in its place: it was read for the last time
  in_.backward_input(c, rows_, dhidden, dnormed);
  norm_->backward(c, rows_, dnormed, dx);
}

}  // namespace smlp
