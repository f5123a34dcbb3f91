// BASE's shuffle: before tokens are assigned in training, every rank of an expert group deals its rows out to all of them in
// random order, so that each assigns a sample of all ranks' tokens and not its own text. The one thing in a model
// that depends on the layout: other ranks deal other rows.
#pragma once

#include <string>
#include <vector>

#include "layers/exchange.h"

namespace smlp {

class TokenShuffle {
 public:
  TokenShuffle(std::string name, bool wanted, ExpertExchange& exchange)
      : name_(std::move(name)), wanted_(wanted), exchange_(exchange) {}

  bool active(const Context& c) const noexcept { return wanted_ && c.training(); }
  // The order of this step and place in the global batch; before mix() and unmix(), which undo each other and are each
  // other's gradient. As many rows come back as go.
  void draw(Context& c);
  void mix(Context& c, TensorView rows, TensorView mixed);
  void unmix(Context& c, TensorView mixed, TensorView rows);

 private:
  void exchange(Context& c, TensorView in, TensorView out);

  std::string name_;
  bool wanted_;
  ExpertExchange& exchange_;
  TensorView order_, back_;  // i32 [rows], of the last draw()
  std::vector<std::int32_t> drawn_order_, drawn_back_;  // the same on the host; their memory is kept
  std::vector<std::int64_t> share_;                     // rows to and from each rank
};

}  // namespace smlp
