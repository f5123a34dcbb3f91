// x = sqrt(width) · table[token], with sinusoids of the position where asked for, and dropout after it. The table is
// tied with the output projection.
#pragma once

#include <optional>
#include <string>

#include "layers/dropout.h"
#include "layers/positions.h"
#include "params/parameter_store.h"

namespace smlp {

class Embedding {
 public:
  Embedding(ParameterStore& store, const std::string& name, std::int64_t vocabulary, std::int64_t width,
            double dropout);

  void add_positions(std::int64_t context) { positions_.emplace(context, table_.shape[1]); }

  void forward(Context& c, TensorView x);    // of c.tokens; x is written
  void backward(Context& c, TensorView dx);  // dx is used up

  Parameter& table() noexcept { return table_; }

 private:
  Parameter& table_;
  double scale_;
  std::optional<Positions> positions_;
  Dropout dropout_;
};

}  // namespace smlp
