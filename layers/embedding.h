// x = sqrt(width) · table[token], with dropout after it. The table is tied with the output projection.
#pragma once

#include <string>

#include "layers/dropout.h"
#include "params/parameter_store.h"

namespace smlp {

class Embedding {
 public:
  Embedding(ParameterStore& store, const std::string& name, std::int64_t vocabulary, std::int64_t width,
            double dropout);

  void forward(Context& c, TensorView x);    // of c.tokens; x is written
  void backward(Context& c, TensorView dx);  // dx is used up

  Parameter& table() noexcept { return table_; }

 private:
  Parameter& table_;
  double scale_;
  Dropout dropout_;
};

}  // namespace smlp
