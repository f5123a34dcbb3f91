// A stack of blocks between a tied embedding and the loss.
#pragma once

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

 private:
  std::unique_ptr<Layer> make_block(const ModelConfig& config, ParameterStore& store, const std::string& kind,
                                    std::int64_t index);
  TensorView run_stack(Context& c);  // the last hidden state

  bool sparse_;
  std::int64_t routers_;  // blocks that have one
  ExpertExchange exchange_;
  std::int64_t context_;
  Embedding embedding_;
  std::vector<std::unique_ptr<Layer>> stack_;
  std::unique_ptr<LossHead> head_;
};

}  // namespace smlp
