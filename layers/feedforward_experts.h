// The experts that live on this rank, each W2 · act(W1 · LN(x)) over its own rows: rows are grouped by
// expert.
#pragma once

#include <span>
#include <string>

#include "layers/exchange.h"

namespace smlp {

class FeedforwardExperts {
 public:
  FeedforwardExperts(ParameterStore& store, const std::string& name, std::int64_t width, std::int64_t hidden,
                     Activation activation, const ExpertExchange& exchange);

  // rows_of_expert: adjacent rows of x for each local expert, zero allowed.
  void forward(Context& c, std::span<const std::int64_t> rows_of_expert, TensorView x, TensorView y);
  // dx may be dy.
  void backward(Context& c, TensorView dy, TensorView dx);

 private:
  template <class Body>
  void each_expert(const Body& body) const;  // body(expert, first row, rows), experts without rows left out

  std::int64_t hidden_;
  Activation activation_;
  Parameter &norm_weight_, &norm_bias_, &in_weight_, &in_bias_, &out_weight_, &out_bias_;
  std::vector<std::int64_t> rows_;
  TensorView x_, mean_, inverse_deviation_, normed_, pre_activation_, activated_;
};

}  // namespace smlp
