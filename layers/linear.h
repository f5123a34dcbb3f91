// A linear map y = x · Wᵀ + b with its gradients. W is stored [out, in].
#pragma once

#include <string>

#include "layers/layer.h"
#include "params/parameter_store.h"

namespace smlp {

// What a product ends with, each where it is given: y = act(x · Wᵀ + b + residual); `pre_activation` keeps what the
// activation was applied to.
struct Epilogue {
  TensorView residual{};
  Activation activation = Activation::none;
  TensorView pre_activation{};
};

// What a backward pass needs of x = act(pre_activation).
struct Activated {
  Activation activation = Activation::none;
  TensorView pre_activation{};
};

class Linear {
 public:
  Linear(ParameterStore& store, const std::string& name, std::int64_t in, std::int64_t out);

  void forward(Context& c, TensorView x, TensorView y, const Epilogue& epilogue = {}) const;
  void add_gradients(Context& c, TensorView x, TensorView dy) const;
  // dx = dy · W, and where the input was an activation, dx = act'(pre_activation) · (dy · W): that of what it was applied to.
  void backward_input(Context& c, TensorView dy, TensorView dx, const Activated& x = {}) const;
  const Parameter& weight() const { return weight_; }
  const Parameter& bias() const { return bias_; }

 private:
  Parameter &weight_, &bias_;
};

}  // namespace smlp
