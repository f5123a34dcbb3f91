#include "layers/language_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "core/error.h"
#include "core/model_check.h"
#include "layers/blocks.h"

namespace smlp {

namespace {

bool routes_channels(const ModelConfig& config, const char* how) {
  const auto stack = stack_of(config);
  return config.channels == how && std::find(stack.begin(), stack.end(), "smlp") != stack.end();
}

// What evaluation has taken is given back when it is done.
class EvaluationFrame {
 public:
  explicit EvaluationFrame(Context& c) {
    if (!c.training()) frame_.emplace(c.scratch);
  }

 private:
  std::optional<Arena::Frame> frame_;
};

}  // namespace

LanguageModel::LanguageModel(const ModelConfig& config, ParameterStore& store, ExpertGroup experts)
    : sparse_(has_experts(config)),
      causal_(!routes_channels(config, "leaky") && !drops_in_evaluation(config)),
      prefix_(routes_channels(config, "partial") ? prefix_of(config.context) : 0),
      exchange_(experts.ranks, sparse_ ? config.experts : experts.ranks.size()),
      context_(config.context),
      embedding_(store, "embed", config.vocabulary, config.width, config.dropout) {
  if (has_attention(config)) embedding_.add_positions(config.context);
  const auto kinds = stack_of(config);
  for (std::size_t k = 0; k < kinds.size(); ++k) {
    stack_.push_back(make_block(config, store, exchange_, kinds[k], static_cast<std::int64_t>(k)));
  }
  head_ = std::make_unique<LossHead>(store, "norm", embedding_.table());
}

TensorView LanguageModel::run_stack(Context& c) {
  expect(c.length <= context_, [&] {
    return fmt::format("sequences of {} tokens are longer than the model's context of {}", c.length, context_);
  });
  expect(c.tokens.size() == c.rows(), "the number of tokens is not sequences times length");
  if (sparse_) exchange_.begin(c);
  const Shape shape{c.rows(), embedding_.table().shape[1]};
  const DType type = embedding_.table().value.dtype;
  TensorView x = c.scratch.take(shape, type);
  TensorView spare = c.training() ? TensorView{} : c.scratch.take(shape, type);
  embedding_.forward(c, x);
  for (int k = 0; const auto& block : stack_) {
    c.at_block(k++);
    const TensorView y = c.training() ? c.scratch.take(shape, type) : spare;
    const EvaluationFrame frame(c);
    block->forward(c, x, y);
    spare = x;
    x = y;
  }
  return x;
}

TensorView LanguageModel::counted_targets(Context& c) const {
  const TensorView counted = c.scratch.take({c.sequences, c.length}, DType::i32);
  if (c.rows() == 0) return counted.reshaped({0});
  c.backend.copy(c.targets.reshaped(counted.shape), counted);
  c.backend.fill(counted.column_range(0, std::min(prefix_, c.length)), -1);
  return counted.reshaped({c.rows()});
}

void LanguageModel::forward_loss(Context& c, TensorView row_loss) {
  const EvaluationFrame frame(c);
  const TensorView x = run_stack(c), targets = c.targets;
  if (prefix_ > 0) c.targets = counted_targets(c);
  head_->forward_loss(c, x, row_loss);
  c.targets = targets;
}

void LanguageModel::forward_logits(Context& c, TensorView rows, TensorView logits) {
  const EvaluationFrame frame(c);
  head_->forward_logits(c, run_stack(c), rows, logits);
}

void LanguageModel::backward(Context& c, const std::function<void(int)>& block_done) {
  const Arena::Frame frame(c.scratch);
  const Shape shape{c.rows(), embedding_.table().shape[1]};
  TensorView dy = c.scratch.take(shape, embedding_.table().value.dtype);
  TensorView dx = c.scratch.take(shape, dy.dtype);
  const auto done = [&](int index) {
    if (block_done) block_done(index);
  };
  head_->backward(c, dy);
  done(blocks());
  for (int k = blocks() - 1; k >= 0; --k) {
    c.at_block(~k);
    stack_[static_cast<std::size_t>(k)]->backward(c, dy, dx);
    std::swap(dy, dx);
    done(k);
  }
  embedding_.backward(c, dy);
  done(-1);
}

}  // namespace smlp
