// Every layer in one body: on each backend and in each type of the program it computes what the CPU does in f64, from
// the same numbers, forward and backward.
#include <fmt/format.h>

#include <array>
#include <cmath>
#include <map>

#include "layers/attention.h"
#include "layers/channel_moe.h"
#include "layers/embedding.h"
#include "layers/expert_stack.h"
#include "layers/feedforward.h"
#include "layers/feedforward_experts.h"
#include "layers/gmlp_block.h"
#include "layers/gmlp_experts.h"
#include "layers/loss_head.h"
#include "layers/routed_channel_moe.h"
#include "layers/token_moe.h"
#include "layers/two_part_block.h"
#include "routing/balanced_router.h"
#include "tests/layers/bench.h"
#include "tests/tensor/verb_case.h"

namespace smlp::test {
namespace {

using Values = std::vector<double>;
using Told = std::map<std::string, Values>;  // what comes out, by name

// The first has rows that are read in packs, and products that libraries may end; the second has neither.
struct Sizes {
  std::int64_t sequences, length, width, hidden;
};
constexpr std::array all_sizes = {Sizes{2, 16, 64, 128}, Sizes{2, 5, 20, 24}};
constexpr std::int64_t experts = 4, vocabulary = 40;
constexpr double dropout = 0.2;

void add_gradients(Bench& b, Told& told) {
  for (const auto& parameter : b.store.parameters()) told["gradient of " + parameter.name] = read(*b.backend, parameter.grad);
}

// With weights as large as training has them: a softmax that has settled on one key bends by rounding alone.
void seal(Bench& b, std::int64_t width) { b.seal(1, 1 / std::sqrt(static_cast<double>(width))); }

Values rounded(Values values, DType type) {
  for (double& value : values) value = round_to(type, value);
  return values;
}

Told rehearse(Bench& b, std::int64_t width, Layer& layer) {
  seal(b, width);
  const Shape shape{b.c.rows(), width};
  const TensorView x = b.memory.take(shape, b.type), y = b.memory.take(shape, b.type);
  const TensorView dy = b.memory.take(shape, b.type), dx = b.memory.take(shape, b.type);
  write(*b.backend, x, rounded(random_values(shape.size(), 102), b.numbers));
  write(*b.backend, dy, rounded(random_values(shape.size(), 103), b.numbers));
  b.begin();
  layer.forward(b.c, x, y);
  layer.backward(b.c, dy, dx);
  Told told = {{"y", read(*b.backend, y)}, {"dx", read(*b.backend, dx)}};
  add_gradients(b, told);
  return told;
}

void take_tokens(Bench& b) {
  std::vector<std::int32_t> tokens, targets;
  for (std::int32_t i = 0; i < b.c.rows(); ++i) {
    tokens.push_back(i * i % static_cast<std::int32_t>(vocabulary));
    targets.push_back((i + 7) * 3 % static_cast<std::int32_t>(vocabulary));
  }
  for (auto* view : {&b.c.tokens, &b.c.targets}) *view = b.memory.take({b.c.rows()}, DType::i32);
  write_indices(*b.backend, b.c.tokens, tokens);
  write_indices(*b.backend, b.c.targets, targets);
}

// The two ends of a model, which share a table.
Told rehearse_ends(Bench& b, const Sizes& s) {
  Embedding embedding(b.store, "embedding", vocabulary, s.width, dropout);
  LossHead head(b.store, "head", embedding.table());
  seal(b, s.width);
  take_tokens(b);
  b.c.loss_scale = b.memory.take({1}, DType::f64);
  b.backend->fill(b.c.loss_scale, 1);
  const Shape shape{b.c.rows(), s.width};
  const TensorView x = b.memory.take(shape, b.type), dx = b.memory.take(shape, b.type);
  const TensorView row_loss = b.memory.take({b.c.rows()}, DType::f64);
  b.begin();
  embedding.forward(b.c, x);
  head.forward_loss(b.c, x, row_loss);
  head.backward(b.c, dx);
  embedding.backward(b.c, dx);
  Told told = {{"x", read(*b.backend, x)}, {"loss", read(*b.backend, row_loss)}};
  add_gradients(b, told);
  return told;
}

std::unique_ptr<ChannelMoe> channels(Bench& b, const Sizes& s) {
  return std::make_unique<ChannelMoe>(b.store, "smoe", s.width, s.length, experts, dropout, *b.exchange);
}

std::unique_ptr<Experts> feedforward_experts(Bench& b, const Sizes& s, const std::string& name) {
  return std::make_unique<FeedforwardExperts>(b.store, name, s.width, s.hidden, Activation::gelu_tanh, true, *b.exchange);
}

std::unique_ptr<TokenMoe> tokens_to(Bench& b, const Sizes& s, std::unique_ptr<Experts> to) {
  TokenMoeParts parts;
  parts.router = std::make_unique<BalancedRouter>(b.store, "tmoe.centroids", experts, s.width);
  parts.experts = std::move(to);
  return std::make_unique<TokenMoe>("tmoe", 0, 1, dropout, std::move(parts), *b.exchange);
}

Told rehearse_stack(Bench& b, const Sizes& s) {
  std::vector<std::unique_ptr<Experts>> chain;
  for (const char* name : {"tmoe.first", "tmoe.second"}) chain.push_back(feedforward_experts(b, s, name));
  return rehearse(b, s.width, *tokens_to(b, s, std::make_unique<ExpertStack>(std::move(chain))));
}

struct Named {
  const char* name;
  Told (*rehearse)(Bench&, const Sizes&);
};

constexpr std::array layers = {
    Named{"LayerNorm", [](Bench& b, const Sizes& s) { return rehearse(b, s.width, *std::make_unique<LayerNorm>(b.store, "norm", s.width)); }},
    Named{"GmlpBlock",
          [](Bench& b, const Sizes& s) {
            GmlpBlock layer(b.store, "block", {s.width, s.hidden, s.length, 1}, Activation::gelu_tanh, dropout);
            return rehearse(b, s.width, layer);
          }},
    Named{"GmlpBlockOfHeads",
          [](Bench& b, const Sizes& s) {
            GmlpBlock layer(b.store, "block", {s.width, s.hidden, s.length, 2}, Activation::gelu, 0);
            return rehearse(b, s.width, layer);
          }},
    Named{"TransformerBlock",
          [](Bench& b, const Sizes& s) {
            TwoPartBlock layer(std::make_unique<SelfAttention>(b.store, "attention", s.width, 2, dropout),
                               std::make_unique<FeedForward>(b.store, "ffn", s.width, s.hidden, Activation::gelu_tanh, dropout));
            return rehearse(b, s.width, layer);
          }},
    Named{"EmbeddingAndHead", rehearse_ends},
    Named{"ChannelMoe",
          [](Bench& b, const Sizes& s) {
            return rehearse(b, s.width, *channels(b, s));
          }},
    Named{"RoutedChannelMoe",
          [](Bench& b, const Sizes& s) {
            RoutedChannelMoe layer(b.store, "smoe", s.width, s.length, experts, false, dropout, *b.exchange);
            return rehearse(b, s.width, layer);
          }},
    Named{"TokenMoe",
          [](Bench& b, const Sizes& s) {
            return rehearse(b, s.width, *tokens_to(b, s, feedforward_experts(b, s, "tmoe.experts")));
          }},
    Named{"ExpertStack", rehearse_stack},
    Named{"GmlpExperts",
          [](Bench& b, const Sizes& s) {
            auto to = std::make_unique<GmlpExperts>(b.store, "tmoe.experts", GmlpSizes{s.width, s.hidden, s.length, 1},
                                                    Activation::gelu_tanh, *b.exchange);
            return rehearse(b, s.width, *tokens_to(b, s, std::move(to)));
          }},
    Named{"SparseBlock",
          [](Bench& b, const Sizes& s) {
            auto first = channels(b, s);
            TwoPartBlock layer(std::move(first), tokens_to(b, s, feedforward_experts(b, s, "tmoe.experts")));
            return rehearse(b, s.width, layer);
          }},
};

using Param = std::tuple<Named, VerbCase>;
class Layers : public testing::TestWithParam<Param> {};

std::string name_of_param(const testing::TestParamInfo<Param>& info) {
  const auto& [layer, on] = info.param;
  return fmt::format("{}_{}_{}", layer.name, name_of(on.type), on.backend);
}
INSTANTIATE_TEST_SUITE_P(Of, Layers, testing::Combine(testing::ValuesIn(layers), testing::ValuesIn(verb_cases())), name_of_param);

double length_of(const Values& values) {
  double squares = 0;
  for (const double value : values) squares += value * value;
  return std::sqrt(squares);
}

// Of the length of each result, or of one whose numbers are 0.3: the gradient of a key's bias is 0. As for the golden models.
double tolerance(DType type) {
  switch (type) {
    case DType::f64: return 1e-9;
    case DType::f32: return 2e-5;
    case DType::f16: return 1e-2;
    default: return 8e-2;
  }
}

TEST_P(Layers, ComputeWhatTheCpuDoesInF64) {
  const auto& [layer, on] = GetParam();
  for (const Sizes& sizes : all_sizes) {
    SCOPED_TRACE(testing::Message() << "width " << sizes.width);
    Bench reference({make_cpu_backend(), DType::f64, on.type}, sizes.sequences, sizes.length);
    Bench here({on.make(), on.type, on.type}, sizes.sequences, sizes.length);
    for (auto* bench : {&reference, &here}) bench->make_exchange(experts);
    const auto wanted = layer.rehearse(reference, sizes), got = layer.rehearse(here, sizes);
    ASSERT_EQ(got.size(), wanted.size());
    for (const auto& [name, values] : wanted) {
      Values apart = got.at(name);
      ASSERT_EQ(apart.size(), values.size()) << name;
      for (std::size_t i = 0; i < values.size(); ++i) apart[i] -= values[i];
      const double least = 0.3 * std::sqrt(static_cast<double>(values.size()));
      EXPECT_LE(length_of(apart), tolerance(on.type) * std::max(length_of(values), least)) << name;
      EXPECT_GT(length_of(values), 0) << name;
    }
  }
}

}  // namespace
}  // namespace smlp::test
