// A stack of blocks between a tied embedding and the loss.
#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "layers/embedding.h"
#include "layers/exchange.h"
#include "layers/loss_head.h"
#include "layers/model.h"

namespace smlp {

class LanguageModel final : public Model {
 public:
  LanguageModel(const ModelConfig& config, ParameterStore& store, ExpertGroup experts);

  void forward_loss(Context& c, TensorView row_loss) override;
  void backward(Context& c, const std::function<void(int)>& block_done) override;
  void forward_logits(Context& c, TensorView rows, TensorView logits) override;
  int blocks() const override { return static_cast<int>(stack_.size()); }
  std::int64_t predicted(std::int64_t length) const override { return length - std::min(prefix_, length); }
  bool causal() const override { return causal_; }

 private:
  TensorView run_stack(Context& c);  // the last hidden state

  // The caller's targets, but for positions that are not predicted.
  TensorView counted_targets(Context& c) const;

  bool sparse_, causal_;
  std::int64_t prefix_;  // positions of a sequence that are not predicted
  ExpertExchange exchange_;
  std::int64_t context_;
  Embedding embedding_;
  std::vector<std::unique_ptr<Layer>> stack_;
  std::unique_ptr<LossHead> head_;
};

}  // namespace smlp
