#include "eval/generate.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <iterator>
#include <numeric>

#include "core/error.h"
#include "core/random.h"

namespace smlp {

namespace {

// The part of the text that the model sees is padded to few different lengths, so that kernels are set up once.
// What follows a position can't change the logits of a causal model.
std::int64_t padded_length(std::int64_t tokens, std::int64_t context) {
  const auto power = static_cast<std::int64_t>(std::bit_ceil(static_cast<std::uint64_t>(tokens)));
  return std::min(std::max<std::int64_t>(power, 16), context);
}

std::vector<double> next_token_logits(Model& model, Backend& backend, Arena& arena,
                                      const std::vector<std::int32_t>& text, DType type,
                                      const GenerationSettings& settings) {
  arena.reset();
  const auto size = static_cast<std::int64_t>(text.size());
  const std::int64_t seen = std::min(size, settings.context);
  const std::int64_t length = model.causal() ? padded_length(seen, settings.context) : seen;
  std::vector<std::int32_t> tokens(text.end() - seen, text.end());
  tokens.resize(static_cast<std::size_t>(length), 0);
  Context c{.backend = backend, .scratch = arena, .mode = Mode::evaluation, .sequences = 1, .length = length};
  c.tokens = arena.take({length}, DType::i32);
  backend.upload(tokens.data(), c.tokens);
  const auto row = arena.take({1}, DType::i32);
  const auto last = static_cast<std::int32_t>(seen - 1);
  backend.upload(&last, row);
  const auto logits = arena.take({1, settings.vocabulary}, type);
  model.forward_logits(c, row, logits);
  const auto wide = arena.take({1, settings.vocabulary}, DType::f64);
  backend.copy(logits, wide);
  std::vector<double> values(static_cast<std::size_t>(settings.vocabulary));
  backend.download(wide, values.data());
  values.resize(static_cast<std::size_t>(settings.known_tokens));
  return values;
}

std::vector<std::int32_t> drawable_tokens(const GenerationSettings& settings) {
  std::vector<std::int32_t> known(static_cast<std::size_t>(settings.known_tokens)), drawable;
  std::iota(known.begin(), known.end(), 0);
  std::set_difference(known.begin(), known.end(), settings.absent_tokens.begin(), settings.absent_tokens.end(),
                      std::back_inserter(drawable));
  return drawable;
}

// `order`: the tokens to choose from, ascending.
std::int32_t draw(const std::vector<double>& logits, std::vector<std::int32_t> order, const GenerationSettings& settings,
                  double uniform) {
  const auto likelier = [&](std::int32_t a, std::int32_t b) {
    const double left = logits[static_cast<std::size_t>(a)], right = logits[static_cast<std::size_t>(b)];
    return left != right ? left > right : a < b;
  };
  if (settings.temperature <= 0) return *std::min_element(order.begin(), order.end(), likelier);
  if (settings.top_k > 0 && static_cast<std::size_t>(settings.top_k) < order.size()) {
    std::nth_element(order.begin(), order.begin() + settings.top_k, order.end(), likelier);
    order.resize(static_cast<std::size_t>(settings.top_k));
    std::sort(order.begin(), order.end());
  }
  double best = -INFINITY;
  for (const auto id : order) best = std::max(best, logits[static_cast<std::size_t>(id)]);
  std::vector<double> cumulative(order.size());
  double total = 0;
  for (std::size_t i = 0; i < order.size(); ++i) {
    total += std::exp((logits[static_cast<std::size_t>(order[i])] - best) / settings.temperature);
    cumulative[i] = total;
  }
  const auto at = std::upper_bound(cumulative.begin(), cumulative.end(), uniform * total);
  return at == cumulative.end() ? order.back() : order[static_cast<std::size_t>(at - cumulative.begin())];
}

}  // namespace

std::vector<std::int32_t> generate(Model& model, Backend& backend, Arena& arena, std::vector<std::int32_t> prompt,
                                   DType type, const GenerationSettings& settings,
                                   const std::function<void(std::int32_t)>& emit) {
  expect(!prompt.empty(), "generate: an empty prompt");
  const RandomStream random(settings.seed, "generate");
  const auto drawable = drawable_tokens(settings);
  for (std::int64_t i = 0; i < settings.tokens; ++i) {
    const auto logits = next_token_logits(model, backend, arena, prompt, type, settings);
    if (!std::all_of(logits.begin(), logits.end(), [](double x) { return std::isfinite(x); })) {
      throw Error(ExitCode::diverged, "the model's logits are not finite: its weights are damaged or diverged");
    }
    const auto token = draw(logits, drawable, settings, random.uniform(static_cast<std::uint64_t>(i)));
    if (token == settings.stop_token) break;
    prompt.push_back(token);
    emit(token);
  }
  return prompt;
}

}  // namespace smlp
