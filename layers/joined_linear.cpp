#include "layers/joined_linear.h"

namespace smlp {

namespace {

bool follows(const TensorView& next, const TensorView& before) { return next.data == before.at(before.size()); }

bool follows(const Parameter& next, const Parameter& before) {
  return follows(next.value, before.value) && follows(next.grad, before.grad);
}

bool follows(const Linear& next, const Linear& before) {
  return follows(next.weight(), before.weight()) && follows(next.bias(), before.bias());
}

// `count` tensors of the form of `first`, one behind the other, as one.
TensorView stretched(const TensorView& first, std::int64_t count) {
  Shape shape = first.shape;
  shape[0] *= count;
  return {first.data, shape, first.dtype};
}

}  // namespace

JoinedLinear::JoinedLinear(ParameterStore& store, const std::vector<std::string>& names, std::int64_t in,
                           std::int64_t out) {
  for (const auto& name : names) maps_.emplace_back(store, name, in, out);
}

template <class Product>
void JoinedLinear::for_each_run(const TensorView& outputs, const Product& product) const {
  const std::int64_t out = outputs.width() / std::ssize(maps_);
  for (std::size_t first = 0, end = 1; first < maps_.size(); first = end++) {
    while (end < maps_.size() && follows(maps_[end], maps_[end - 1])) ++end;
    const auto count = static_cast<std::int64_t>(end - first);
    const auto &weight = maps_[first].weight(), &bias = maps_[first].bias();
    product(Run{stretched(weight.value, count), stretched(weight.grad, count), stretched(bias.value, count),
                stretched(bias.grad, count),
                outputs.column_range(static_cast<std::int64_t>(first) * out, count * out)},
            first == 0);
  }
}

void JoinedLinear::forward(Context& c, TensorView x, TensorView y) const {
  for_each_run(y, [&](const Run& run, bool) {
    c.backend.matmul({.a = x, .b = run.weight, .out = run.columns, .transpose_b = true, .bias = run.bias});
  });
}

void JoinedLinear::add_gradients(Context& c, TensorView x, TensorView dy) const {
  for_each_run(dy, [&](const Run& run, bool) {
    c.backend.matmul({.a = run.columns,
                      .b = x,
                      .out = run.weight_grad,
                      .transpose_a = true,
                      .accumulate = true,
                      .bias_gradient = run.bias_grad});
  });
}

void JoinedLinear::backward_input(Context& c, TensorView dy, TensorView dx) const {
  for_each_run(dy, [&](const Run& run, bool first) {
    c.backend.matmul({.a = run.columns, .b = run.weight, .out = dx, .accumulate = !first});
  });
}

}  // namespace smlp
