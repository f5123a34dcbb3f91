#include "layers/language_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "core/error.h"
#include "layers/gmlp_block.h"
#include "layers/smlp_block.h"

namespace smlp {

namespace {

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
      routers_(std::ranges::count(stack_of(config), "smlp")),
      exchange_(experts.ranks, sparse_ ? config.experts : experts.ranks.size()),
      context_(config.context),
      embedding_(store, "embed", config.vocabulary, config.width, config.dropout) {
  const auto kinds = stack_of(config);
  for (std::size_t k = 0; k < kinds.size(); ++k) {
    stack_.push_back(make_block(config, store, kinds[k], static_cast<std::int64_t>(k)));
  }
  head_ = std::make_unique<LossHead>(store, "norm", embedding_.table());
}

std::unique_ptr<Layer> LanguageModel::make_block(const ModelConfig& config, ParameterStore& store,
                                                 const std::string& kind, std::int64_t index) {
  const std::string name = fmt::format("blocks.{}", index);
  if (kind == "gmlp") {
    return std::make_unique<GmlpBlock>(store, name,
                                       GmlpSizes{config.width, config.hidden, config.context, config.heads},
                                       config.activation, config.dropout);
  }
  auto channels = std::make_unique<ChannelMoe>(store, name + ".smoe", config.width, config.context,
                                               config.experts, config.dropout, exchange_);
  auto router = make_router(config.router, store, name + ".tmoe",
                            {config.experts, config.width, config.vocabulary, routers_});
  auto tokens = std::make_unique<TokenMoe>(
      store, name + ".tmoe", index,
      TokenMoeSizes{config.width, config.hidden, config.experts, config.group_sequences}, config.activation,
      config.dropout, std::move(router), exchange_);
  return std::make_unique<SmlpBlock>(std::move(channels), std::move(tokens));
}

TensorView LanguageModel::run_stack(Context& c) {
  expect(c.length <= context_,
         fmt::format("sequences of {} tokens are longer than the model's context of {}", c.length, context_));
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

void LanguageModel::forward_loss(Context& c, TensorView row_loss) {
  const EvaluationFrame frame(c);
  head_->forward_loss(c, run_stack(c), row_loss);
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
