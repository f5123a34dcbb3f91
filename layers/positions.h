// Sinusoids added to the input of a Transformer, no parameters: position p, channel i < H/2 gains
// sin(p · 10000^(-i / (H/2 - 1))), channel H/2 + i the cosine (fairseq's order).
#pragma once

#include "layers/layer.h"

namespace smlp {

class Positions {
 public:
  Positions(std::int64_t context, std::int64_t width) : context_(context), width_(width) {}
  ~Positions();
  Positions(const Positions&) = delete;
  Positions& operator=(const Positions&) = delete;

  void add_to(Context& c, TensorView x);  // in place

 private:
  void make_table(Context& c, DType type);

  std::int64_t context_, width_;
  Backend* backend_ = nullptr;  // holds the table; known at the first call
  TensorView table_;            // [context, width]
};

}  // namespace smlp
