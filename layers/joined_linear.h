// Several linear maps of one input, whose outputs stand side by side: y = [x · W_0ᵀ + b_0, x · W_1ᵀ + b_1, ...]. Each is a
// Linear by name in the store, which lays their weights one behind the other: then all are one product.
#pragma once

#include <string>
#include <vector>

#include "layers/linear.h"

namespace smlp {

class JoinedLinear {
 public:
  // One map a name, each [in] to [out].
  JoinedLinear(ParameterStore& store, const std::vector<std::string>& names, std::int64_t in, std::int64_t out);

  void forward(Context& c, TensorView x, TensorView y) const;          // y [rows, maps · out]
  void add_gradients(Context& c, TensorView x, TensorView dy) const;   // dy as y
  void backward_input(Context& c, TensorView dy, TensorView dx) const;

 private:
  // Of a run of maps without a gap between them in memory; padding of the store makes gaps where sizes are odd.
  struct Run {
    TensorView weight, weight_grad, bias, bias_grad, columns;
  };
  template <class Product>
  void for_each_run(const TensorView& outputs, const Product& product) const;

  std::vector<Linear> maps_;
};

}  // namespace smlp
