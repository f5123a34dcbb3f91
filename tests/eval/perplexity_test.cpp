// What evaluation hands a model and adds up, with a model that tells: its loss of a position is what its target is beside the
// token that follows in the file.
#include "eval/perplexity.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <set>

#include "data/token_file_writer.h"
#include "tests/scratch.h"

namespace smlp {
namespace {

// In files of ascending tokens the target of t is t + 1.
class Successor final : public Model {
 public:
  std::set<std::int32_t> starts;  // first tokens of the windows seen
  std::int64_t most_sequences = 0;
  double of_each = 0;  // loss of a row beyond its error

  void forward_loss(Context& c, TensorView row_loss) override {
    std::vector<std::int32_t> tokens(static_cast<std::size_t>(c.rows())), targets(tokens.size());
    c.backend.download(c.tokens, tokens.data());
    c.backend.download(c.targets, targets.data());
    std::vector<double> losses;
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      if (i % static_cast<std::size_t>(c.length) == 0) starts.insert(tokens[i]);
      losses.push_back(std::abs(targets[i] - tokens[i] - 1) + of_each);
    }
    if (!losses.empty()) c.backend.upload(losses.data(), row_loss);
    most_sequences = std::max(most_sequences, c.sequences);
  }
  void backward(Context&, const std::function<void(int)>&) override {}
  void forward_logits(Context&, TensorView, TensorView) override {}
  int blocks() const override { return 0; }
  std::int64_t predicted(std::int64_t length) const override { return length; }
  bool causal() const override { return true; }
};

class Perplexity : public testing::Test {
 protected:
  Evaluation score(std::int64_t tokens, const EvaluationPlan& plan) {
    const test::Scratch scratch;
    std::vector<std::int32_t> all(static_cast<std::size_t>(tokens));
    std::iota(all.begin(), all.end(), 0);
    const auto prefix = (scratch.root() / "ascending").string();
    TokenFileWriter writer(prefix, 1 << 20);
    writer.append(all);
    writer.finish();
    Arena arena(*backend);
    return evaluate(model, *backend, arena, *solo, TokenFile(prefix), plan);
  }
  std::unique_ptr<Backend> backend = make_cpu_backend();
  std::unique_ptr<Communicator> solo = make_solo(*backend);
  Successor model;
};

TEST_F(Perplexity, EveryTokenButTheFirstIsPredictedOnceFromTheOneBeforeIt) {
  model.of_each = 0.5;
  const auto found = score(104, {.context = 10, .batch = 3});
  EXPECT_EQ(found.tokens, 103);
  EXPECT_DOUBLE_EQ(found.loss_sum, 0.5 * 103) << "0.5 each: no target was another than the next token";
  EXPECT_DOUBLE_EQ(found.perplexity(), std::exp(0.5));
  EXPECT_EQ(model.starts, (std::set<std::int32_t>{0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100})) << "the last one is shorter";
  EXPECT_EQ(model.most_sequences, 3);
}

TEST_F(Perplexity, SomeWindowsAreSpreadEvenlyOverTheFile) {
  const auto found = score(101, {.context = 10, .batch = 2, .windows = 4});
  EXPECT_EQ(found.tokens, 40);
  EXPECT_EQ(model.starts, (std::set<std::int32_t>{0, 20, 50, 70}));
  EXPECT_DOUBLE_EQ(found.loss_sum, 0);
  EXPECT_EQ(score(101, {.context = 10, .batch = 2, .windows = 11}).tokens, 100) << "more than there are: all";
}

TEST_F(Perplexity, OfTokensThatAreNoWholeWindow) {
  EXPECT_EQ(score(2, {.context = 10}).tokens, 1);
  EXPECT_EQ(score(11, {.context = 10}).tokens, 10);
}

}  // namespace
}  // namespace smlp
