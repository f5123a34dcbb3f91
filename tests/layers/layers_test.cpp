#include <gtest/gtest.h>

#include <cmath>

#include "core/error.h"
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

namespace smlp {
namespace {

using test::Bench;
using test::check_gradients;

// A layer whose input does not matter, for parts of a model that are no Layer.
class EmbeddingAsLayer final : public Layer {
 public:
  explicit EmbeddingAsLayer(Embedding& embedding) : embedding_(embedding) {}
  void forward(Context& c, TensorView, TensorView y) override { embedding_.forward(c, y); }
  void backward(Context& c, TensorView dy, TensorView dx) override {
    embedding_.backward(c, dy);
    c.backend.fill(dx, 0);
  }

 private:
  Embedding& embedding_;
};

TEST(LayerNorm, GradientsMatchDifferences) {
  Bench b;
  LayerNorm layer(b.store, "norm", 6);
  b.seal();
  check_gradients(b, layer, 6);
}

TEST(LayerNorm, OnePartOfTheRowForEachExpert) {
  Bench b;
  auto& weight = b.store.add({.name = "parts.norm.weight", .shape = {3, 4}, .initial = Initial::ones()});
  auto& bias = b.store.add({.name = "parts.norm.bias", .shape = {3, 4}, .initial = {}});
  LayerNorm layer(weight, bias);
  b.seal();
  check_gradients(b, layer, 12);
}

TEST(Embedding, GradientsMatchDifferencesThroughDropout) {
  for (const double dropout : {0.0, 0.4}) {
    Bench b(2, 3);
    Embedding embedding(b.store, "embed", 5, 4, dropout);
    EmbeddingAsLayer layer(embedding);
    b.seal();
    b.c.tokens = b.memory.take({6}, DType::i32);
    test::write_indices(*b.backend, b.c.tokens, {4, 0, 2, 2, 0, 2});
    check_gradients(b, layer, 4);
  }
}

struct GmlpCase {
  std::int64_t heads, length;
  Activation activation;
  double dropout;
};

class GmlpBlockTest : public testing::TestWithParam<GmlpCase> {};

TEST_P(GmlpBlockTest, GradientsMatchDifferences) {
  const GmlpCase& p = GetParam();
  Bench b(2, p.length);
  GmlpBlock layer(b.store, "block", {.width = 5, .hidden = 8, .context = 4, .heads = p.heads}, p.activation,
                  p.dropout);
  b.seal();
  check_gradients(b, layer, 5);
}

INSTANTIATE_TEST_SUITE_P(
    All, GmlpBlockTest,
    testing::Values(GmlpCase{1, 4, Activation::gelu_tanh, 0}, GmlpCase{2, 4, Activation::gelu_tanh, 0},
                    GmlpCase{4, 3, Activation::gelu, 0}, GmlpCase{2, 1, Activation::gelu_tanh, 0},
                    GmlpCase{1, 4, Activation::relu, 0}, GmlpCase{2, 4, Activation::gelu_tanh, 0.3}));

struct AttentionCase {
  std::int64_t heads, length;
  double dropout;
};

class AttentionTest : public testing::TestWithParam<AttentionCase> {};

TEST_P(AttentionTest, GradientsMatchDifferences) {
  const AttentionCase& p = GetParam();
  Bench b(2, p.length);
  SelfAttention layer(b.store, "attention", 6, p.heads, p.dropout);
  b.seal();
  check_gradients(b, layer, 6);
}

TEST_P(AttentionTest, ABlockOfTwoPartsHasTheGradientsOfBoth) {
  const AttentionCase& p = GetParam();
  Bench b(2, p.length);
  auto attention = std::make_unique<SelfAttention>(b.store, "attention", 6, p.heads, p.dropout);
  auto tokens = std::make_unique<FeedForward>(b.store, "ffn", 6, 5, Activation::gelu_tanh, p.dropout);
  TwoPartBlock layer(std::move(attention), std::move(tokens));
  b.seal();
  check_gradients(b, layer, 6);
}

INSTANTIATE_TEST_SUITE_P(All, AttentionTest,
                         testing::Values(AttentionCase{1, 4, 0}, AttentionCase{3, 5, 0}, AttentionCase{2, 1, 0},
                                         AttentionCase{2, 4, 0.3}));

TEST(Positions, AreSinesThenCosines) {
  Bench b(2, 3);
  Positions positions(5, 6);
  b.seal();
  for (const std::int64_t length : {3, 2}) {  // the second from the table that is there
    b.c.length = length;
    const TensorView x = b.memory.take({2 * length, 6}, DType::f64);
    b.backend->fill(x, 1);
    positions.add_to(b.c, x);
    const auto values = test::read(*b.backend, x);
    for (std::int64_t r = 0; r < 2 * length; ++r) {
      for (std::int64_t i = 0; i < 3; ++i) {
        const double angle = static_cast<double>(r % length) * std::pow(10000.0, -static_cast<double>(i) / 2);
        EXPECT_NEAR(values[static_cast<std::size_t>(r * 6 + i)], 1 + std::sin(angle), 1e-14);
        EXPECT_NEAR(values[static_cast<std::size_t>(r * 6 + 3 + i)], 1 + std::cos(angle), 1e-14);
      }
    }
  }
}

struct SparseCase {
  std::int64_t sequences, length, experts, group_sequences;
  double dropout;
};

std::unique_ptr<ChannelMoe> make_channels(Bench& b, const SparseCase& p, std::int64_t width) {
  return std::make_unique<ChannelMoe>(b.store, "smoe", width, 5, p.experts, p.dropout, *b.exchange);
}

std::unique_ptr<TokenMoe> make_tokens(Bench& b, const SparseCase& p, std::int64_t width) {
  TokenMoeParts parts;
  parts.router = std::make_unique<BalancedRouter>(b.store, "tmoe.centroids", p.experts, width);
  parts.experts = std::make_unique<FeedforwardExperts>(b.store, "tmoe.experts", width, 3, Activation::gelu_tanh, true,
                                                       *b.exchange);
  return std::make_unique<TokenMoe>("tmoe", 0, p.group_sequences, p.dropout, std::move(parts), *b.exchange);
}

class SparseTest : public testing::TestWithParam<SparseCase> {};

TEST_P(SparseTest, ChannelMoeGradientsMatchDifferences) {
  const SparseCase& p = GetParam();
  Bench b(p.sequences, p.length);
  b.make_exchange(p.experts);
  const auto layer = make_channels(b, p, 5 * p.experts);
  b.seal();
  check_gradients(b, *layer, 5 * p.experts);
}

TEST_P(SparseTest, RoutedChannelMoeGradientsMatchDifferences) {
  const SparseCase& p = GetParam();
  for (const bool leaky : {false, true}) {
    Bench b(p.sequences, p.length);
    b.make_exchange(p.experts);
    RoutedChannelMoe layer(b.store, "smoe", 4 * p.experts, 5, p.experts, leaky, p.dropout, *b.exchange);
    b.seal();
    check_gradients(b, layer, 4 * p.experts);
  }
}

TEST_P(SparseTest, TokenMoeGradientsMatchDifferences) {
  const SparseCase& p = GetParam();
  Bench b(p.sequences, p.length);
  b.make_exchange(p.experts);
  const auto layer = make_tokens(b, p, 4);
  b.seal();
  check_gradients(b, *layer, 4);
}

std::unique_ptr<Experts> make_chain(Bench& b, std::size_t count, std::int64_t width) {
  std::vector<std::unique_ptr<Experts>> layers;
  for (std::size_t i = 0; i < count; ++i) {
    layers.push_back(std::make_unique<FeedforwardExperts>(b.store, "experts." + std::to_string(i), width, 3,
                                                          Activation::gelu_tanh, true, *b.exchange));
  }
  return std::make_unique<ExpertStack>(std::move(layers));
}

TEST_P(SparseTest, ExpertStackGradientsMatchDifferences) {
  const SparseCase& p = GetParam();
  for (const std::size_t count : {1, 2, 3}) {
    Bench b(p.sequences, p.length);
    b.make_exchange(p.experts);
    TokenMoeParts parts;
    parts.router = std::make_unique<BalancedRouter>(b.store, "centroids", p.experts, 4);
    parts.experts = make_chain(b, count, 4);
    TokenMoe layer("tmoe", 0, p.group_sequences, p.dropout, std::move(parts), *b.exchange);
    b.seal();
    check_gradients(b, layer, 4);
  }
}

TEST(ExpertStack, AnswersWithWhatAChainOfResidualBlocksAdds) {
  Bench b(1, 6);
  b.make_exchange(2);
  const auto chain = make_chain(b, 2, 4);
  b.seal();
  b.begin();
  const std::vector<std::int64_t> rows = {4, 2};
  const Shape shape{6, 4};
  const auto take = [&] { return b.memory.take(shape, DType::f64); };
  const TensorView x = take(), y = take(), first = take(), between = take(), second = take();
  test::write(*b.backend, x, test::random_values(24, 3));
  chain->forward(b.c, rows, {}, x, y);
  Bench alone(1, 6);
  alone.make_exchange(2);
  FeedforwardExperts one(alone.store, "experts.0", 4, 3, Activation::gelu_tanh, true, *alone.exchange);
  FeedforwardExperts two(alone.store, "experts.1", 4, 3, Activation::gelu_tanh, true, *alone.exchange);
  alone.seal();
  alone.begin();
  one.forward(alone.c, rows, {}, x, first);
  alone.backend->add(x, first, between);
  two.forward(alone.c, rows, {}, between, second);
  const auto got = test::read(*b.backend, y), a = test::read(*b.backend, first), c = test::read(*b.backend, second);
  for (std::size_t i = 0; i < got.size(); ++i) EXPECT_NEAR(got[i], a[i] + c[i], 1e-14);
}

TEST_P(SparseTest, GmlpExpertsGradientsMatchDifferences) {
  const SparseCase& p = GetParam();
  for (const std::int64_t heads : {1, 2}) {
    Bench b(p.sequences, p.length);
    b.make_exchange(p.experts);
    TokenMoeParts parts;
    parts.router = std::make_unique<BalancedRouter>(b.store, "moe.centroids", p.experts, 4);
    parts.experts = std::make_unique<GmlpExperts>(b.store, "moe.experts", GmlpSizes{4, 8, 5, heads},
                                                  Activation::gelu_tanh, *b.exchange);
    TokenMoe layer("moe", 0, p.group_sequences, p.dropout, std::move(parts), *b.exchange);
    b.seal();
    check_gradients(b, layer, 4);
  }
}

TEST_P(SparseTest, ABlockOfBothHasTheGradientsOfBoth) {
  const SparseCase& p = GetParam();
  Bench b(p.sequences, p.length);
  b.make_exchange(p.experts);
  auto channels = make_channels(b, p, 5 * p.experts);
  TwoPartBlock layer(std::move(channels), make_tokens(b, p, 5 * p.experts));
  b.seal();
  check_gradients(b, layer, 5 * p.experts);
}

// The second: three slots for four experts leave many empty; the third: a remainder in each of two groups.
INSTANTIATE_TEST_SUITE_P(All, SparseTest,
                         testing::Values(SparseCase{2, 4, 2, 2, 0}, SparseCase{1, 3, 4, 1, 0},
                                         SparseCase{4, 5, 3, 2, 0}, SparseCase{2, 3, 1, 1, 0},
                                         SparseCase{2, 5, 3, 2, 0.3}));

// Of the part that is gated, it started as U(±1e-3 / (T - P)).
TEST(RoutedChannelMoe, ItsWeightOverTokensStartsAsModelMdSays) {
  for (const bool leaky : {false, true}) {
    Bench b(2, 10);
    RoutedChannelMoe layer(b.store, "smoe", 12, 10, 3, leaky, 0, b.make_exchange(3));
    const Parameter& weight = b.store.find("smoe.experts.spatial.weight");
    EXPECT_EQ(weight.shape[1], leaky ? 10 : 8);
    EXPECT_EQ(weight.initial.kind, Initial::Kind::uniform);
    EXPECT_DOUBLE_EQ(weight.initial.scale, 1e-3 / 10);
  }
}

TEST(RoutedChannelMoe, PassesAShortSequenceUnchangedAndRefusesToTrainOnIt) {
  Bench b(2, 2);
  b.make_exchange(2);
  RoutedChannelMoe layer(b.store, "smoe", 4, 12, 2, false, 0, *b.exchange);  // a prefix of 2
  b.seal();
  const TensorView x = b.memory.take({4, 4}, DType::f64), y = b.memory.take({4, 4}, DType::f64);
  test::write(*b.backend, x, test::random_values(16, 1));
  EXPECT_THROW(layer.forward(b.c, x, y), Error);
  b.c.mode = Mode::evaluation;
  layer.forward(b.c, x, y);
  EXPECT_EQ(test::read(*b.backend, y), test::read(*b.backend, x));
}

TEST(TokenMoe, AnEmptySlotHasNoEffectOnItsExpert) {
  // One token, two experts: the expert with the empty slot must get no gradient at all, its biases included.
  Bench b(1, 1);
  b.make_exchange(2);
  const auto layer = make_tokens(b, {1, 1, 2, 1, 0}, 4);
  b.seal();
  std::vector<RoutingReport> reports;
  b.c.reports = &reports;
  const TensorView x = b.memory.take({1, 4}, DType::f64), y = b.memory.take({1, 4}, DType::f64);
  const TensorView dy = b.memory.take({1, 4}, DType::f64), dx = b.memory.take({1, 4}, DType::f64);
  test::write(*b.backend, x, test::random_values(4, 1));
  test::write(*b.backend, dy, test::random_values(4, 2));
  layer->forward(b.c, x, y);
  layer->backward(b.c, dy, dx);
  ASSERT_EQ(reports.size(), 1u);
  EXPECT_EQ(reports[0].expert_tokens[0] + reports[0].expert_tokens[1], 1);
  const std::size_t idle = reports[0].expert_tokens[0] == 0 ? 0 : 1;
  for (const auto& parameter : b.store.parameters()) {
    if (parameter.name.find("experts") == std::string::npos) continue;
    const auto gradients = test::read(*b.backend, parameter.grad.slice(static_cast<std::int64_t>(idle)));
    for (const double g : gradients) EXPECT_EQ(g, 0) << parameter.name;
    double busy = 0;
    for (const double g : test::read(*b.backend, parameter.grad.slice(1 - static_cast<std::int64_t>(idle)))) {
      busy += std::abs(g);
    }
    EXPECT_GT(busy, 0) << parameter.name;
  }
}

TEST(TokenMoe, RefusesAMicroBatchThatCutsAGroup) {
  Bench b(3, 2);
  b.make_exchange(2);
  const auto layer = make_tokens(b, {3, 2, 2, 2, 0}, 4);
  b.seal();
  const TensorView x = b.memory.take({6, 4}, DType::f64), y = b.memory.take({6, 4}, DType::f64);
  EXPECT_THROW(layer->forward(b.c, x, y), std::exception);
}

TEST(Dropout, MasksFollowThePlaceInTheGlobalBatch) {
  Bench b(2, 3);
  const Dropout dropout("name", 0.5);
  b.seal();
  const auto mask = [&](std::int64_t first_sequence, std::int64_t sequences, std::int64_t step) {
    b.c.stand_at(step, first_sequence);
    b.c.sequences = sequences;
    const TensorView x = b.memory.take({sequences * 3, 8}, DType::f64);
    b.backend->fill(x, 1);
    dropout.apply(b.c, x, x);
    return test::read(*b.backend, x);
  };
  const auto whole = mask(4, 2, 1), second = mask(5, 1, 1), later = mask(4, 2, 2);
  EXPECT_EQ(std::vector<double>(whole.begin() + 24, whole.end()), second);
  EXPECT_NE(whole, later);
  for (const double v : whole) EXPECT_TRUE(v == 0 || v == 2) << v;
}

}  // namespace
}  // namespace smlp
