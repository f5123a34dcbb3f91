// What experts are made of: a norm and a linear map of their own for each of the experts that live here, over rows that
// are grouped by expert.
#pragma once

#include <span>
#include <string>

#include "layers/exchange.h"
#include "layers/linear.h"

namespace smlp {

using ExpertRows = std::span<const std::int64_t>;  // adjacent rows of each local expert, zero allowed

// body(expert, first row, rows), experts without rows left out.
template <class Body>
void each_expert(ExpertRows rows, const Body& body) {
  std::int64_t first = 0;
  for (std::size_t e = 0; e < rows.size(); ++e) {
    if (rows[e] > 0) body(static_cast<std::int64_t>(e), first, rows[e]);
    first += rows[e];
  }
}

class ExpertNorm {
 public:
  ExpertNorm(ParameterStore& store, const std::string& name, std::int64_t width, const ExpertExchange& exchange);

  void forward(Context& c, ExpertRows rows, TensorView x, TensorView y);
  void backward(Context& c, ExpertRows rows, TensorView dy, TensorView dx);  // dx may be dy

 private:
  Normalisation of_all() const;
  Normalisation of_expert(std::int64_t expert, std::int64_t first, std::int64_t count) const;

  Parameter &weight_, &bias_;
  TensorView x_, mean_, inverse_deviation_;
};

class ExpertLinear {
 public:
  ExpertLinear(ParameterStore& store, const std::string& name, std::int64_t in, std::int64_t out, Initial initial,
               const ExpertExchange& exchange);

  void forward(Context& c, ExpertRows rows, TensorView x, TensorView y, const Epilogue& epilogue = {}) const;
  void add_gradients(Context& c, ExpertRows rows, TensorView x, TensorView dy) const;
  // dx = act'(pre_activation) · (dy · W): the gradient of what the input was the activation of.
  void backward_input(Context& c, ExpertRows rows, TensorView dy, TensorView dx, const Activated& x = {}) const;

 private:
  Parameter &weight_, &bias_;
};

}  // namespace smlp
