// Text from a model whose logits are told here.
#include "eval/generate.h"

#include <gtest/gtest.h>

#include <set>

#include "tests/layers/tiny_model.h"

namespace smlp {
namespace {

// The likeliest token is always 3, then 5; the others are all alike.
class Favourites final : public Model {
 public:
  void forward_logits(Context& c, TensorView rows, TensorView logits) override {
    std::vector<double> out(static_cast<std::size_t>(logits.size()), 0.0);
    for (std::int64_t r = 0; r < rows.size(); ++r) {
      out[static_cast<std::size_t>(r * logits.width() + 3)] = 9;
      out[static_cast<std::size_t>(r * logits.width() + 5)] = 8;
    }
    c.backend.upload(out.data(), logits);
  }
  void forward_loss(Context&, TensorView) override {}
  void backward(Context&, const std::function<void(int)>&) override {}
  int blocks() const override { return 0; }
  std::int64_t predicted(std::int64_t length) const override { return length; }
  bool causal() const override { return true; }
};

std::vector<std::int32_t> text_of(const GenerationSettings& settings) {
  const auto backend = make_cpu_backend();
  Arena arena(*backend);
  Favourites model;
  auto text = generate(model, *backend, arena, {1}, DType::f64, settings, [](std::int32_t) {});
  text.erase(text.begin());
  return text;
}

// An id that vocab.json skips was drawn, and ended `smlp generate` with 65: "there is no token 357".
TEST(Generate, DrawsNoIdThatTheVocabularySkips) {
  GenerationSettings settings{.tokens = 200, .temperature = 50, .context = 8, .vocabulary = 16, .known_tokens = 10};
  settings.absent_tokens = {3, 4, 7};
  const auto text = text_of(settings);
  EXPECT_EQ(std::set(text.begin(), text.end()), (std::set<std::int32_t>{0, 1, 2, 5, 6, 8, 9})) << "and every other one";
  settings.temperature = 0;
  settings.tokens = 3;
  EXPECT_EQ(text_of(settings), (std::vector<std::int32_t>{5, 5, 5})) << "the likeliest of those that are there";
  settings.temperature = 1;
  settings.top_k = 1;
  EXPECT_EQ(text_of(settings), (std::vector<std::int32_t>{5, 5, 5}));
}

}  // namespace
}  // namespace smlp
