#include "layers/embedding.h"

#include <cmath>

namespace smlp {

Embedding::Embedding(ParameterStore& store, const std::string& name, std::int64_t vocabulary,
                     std::int64_t width, double dropout)
    : table_(store.add({.name = name + ".weight",
                        .shape = {vocabulary, width},
                        .initial = Initial::normal(1 / std::sqrt(static_cast<double>(width)))})),
      scale_(std::sqrt(static_cast<double>(width))),
      dropout_(name, dropout) {}

void Embedding::forward(Context& c, TensorView x) {
  if (x.rows() == 0) return;
  c.backend.gather_rows(table_.value, c.tokens, scale_, {}, x);
  if (positions_) positions_->add_to(c, x);
  if (dropout_.active(c)) dropout_.apply(c, x, x);
}

void Embedding::backward(Context& c, TensorView dx) {
  if (dx.rows() == 0) return;
  if (dropout_.active(c)) dropout_.apply(c, dx, dx);
  c.backend.scatter_add_rows(dx, c.tokens, Repeats::possible, scale_, {}, table_.grad);
}

}  // namespace smlp
