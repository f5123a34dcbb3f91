#include "layers/feedforward.h"

namespace smlp {

FeedForward::FeedForward(ParameterStore& store, const std::string& name, std::int64_t width,
                         std::int64_t hidden, Activation activation, double dropout)
    : hidden_(hidden),
      activation_(activation),
      norm_(store, name + ".norm", width),
      in_(store, name + ".in", width, hidden),
      out_(store, name + ".out", hidden, width),
      dropout_(name, dropout) {}

void FeedForward::forward(Context& c, TensorView x, TensorView y) {
  const std::int64_t rows = x.rows();
  if (rows == 0) return;
  normed_ = c.scratch.take({rows, x.width()}, x.dtype);
  norm_.forward(c, x, normed_);
  pre_activation_ = c.training() ? c.scratch.take({rows, hidden_}, x.dtype) : TensorView{};
  activated_ = c.scratch.take({rows, hidden_}, x.dtype);
  in_.forward(c, normed_, activated_, {.activation = activation_, .pre_activation = pre_activation_});
  const bool dropping = dropout_.active(c);
  out_.forward(c, activated_, y, {.residual = dropping ? TensorView{} : x});
  if (dropping) dropout_.join(c, y, x, y);
}

void FeedForward::backward(Context& c, TensorView dy, TensorView dx) {
  if (dy.rows() == 0) return;
  const Arena::Frame frame(c.scratch);
  const TensorView dbranch = dropout_.gradient(c, dy);
  out_.add_gradients(c, activated_, dbranch);
  const TensorView dhidden = activated_;  // in its place: it was read for the last time
  out_.backward_input(c, dbranch, dhidden, {activation_, pre_activation_});
  in_.add_gradients(c, normed_, dhidden);
  const TensorView dnormed = normed_;  // in its place
  in_.backward_input(c, dhidden, dnormed);
  norm_.backward(c, dnormed, dy, dx);
}

}  // namespace smlp
