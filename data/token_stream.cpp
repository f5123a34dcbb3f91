#include "data/token_stream.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "core/digest.h"
#include "core/error.h"
#include "core/random.h"

namespace smlp {

namespace {

struct Place {
  std::int64_t file, window;
};

struct Source {
  TokenFile file;
  std::int64_t windows;
  std::int64_t first;  // windows of the files before it
  RandomStream keys;   // epoch -> key of its permutation
};

// Which file a slot of the repeating pattern belongs to, and how many slots of that file come before it.
struct Pattern {
  struct Slot {
    std::int64_t file, earlier;
  };
  std::vector<Slot> slots;
  std::vector<std::int64_t> owned;  // slots a file has in the whole pattern
};

std::vector<std::int64_t> share_slots(const std::vector<double>& weights, std::int64_t slots) {
  const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  std::vector<std::int64_t> owned(weights.size());
  std::vector<std::size_t> order;
  std::vector<double> wish(weights.size());
  for (std::size_t f = 0; f < weights.size(); ++f) {
    if (weights[f] == 0) continue;
    wish[f] = weights[f] / total * static_cast<double>(slots);
    owned[f] = std::max<std::int64_t>(1, static_cast<std::int64_t>(wish[f]));
    order.push_back(f);
  }
  std::int64_t left = slots - std::accumulate(owned.begin(), owned.end(), std::int64_t{0});
  const auto missing = [&](std::size_t f) { return wish[f] - static_cast<double>(owned[f]); };
  while (left > 0) {
    const auto neediest = *std::max_element(order.begin(), order.end(),
                                            [&](auto a, auto b) { return missing(a) < missing(b); });
    ++owned[neediest];
    --left;
  }
  while (left < 0) {  // many files got their one slot by courtesy: the largest pay
    --owned[*std::max_element(order.begin(), order.end(),
                              [&](auto a, auto b) { return owned[a] < owned[b]; })];
    ++left;
  }
  return owned;
}

Pattern make_pattern(const std::vector<double>& weights) {
  std::int64_t slots = 4096;
  while (slots < 16 * std::ssize(weights)) slots *= 2;
  Pattern pattern;
  pattern.owned = share_slots(weights, slots);
  struct Wish {
    double place;
    Pattern::Slot slot;
  };
  std::vector<Wish> wishes;
  for (std::int64_t f = 0; f < std::ssize(weights); ++f) {
    const auto owned = pattern.owned[static_cast<std::size_t>(f)];
    for (std::int64_t j = 0; j < owned; ++j) {
      wishes.push_back({(static_cast<double>(j) + 0.5) / static_cast<double>(owned), {f, j}});
    }
  }
  std::stable_sort(wishes.begin(), wishes.end(),
                   [](const Wish& a, const Wish& b) { return a.place < b.place; });
  for (const auto& wish : wishes) pattern.slots.push_back(wish.slot);
  return pattern;
}

void check_weights(const StreamSettings& settings) {
  const auto& weights = settings.weights;
  if (weights.empty()) return;
  if (weights.size() != settings.prefixes.size()) {
    throw Error(ExitCode::configuration,
                fmt::format("data.weights has {} numbers for {} token files: give one a file", weights.size(),
                            settings.prefixes.size()));
  }
  const bool numbers =
      std::all_of(weights.begin(), weights.end(), [](double w) { return std::isfinite(w) && w >= 0; });
  const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
  if (!numbers || !(total > 0) || !std::isfinite(total)) {
    throw Error(ExitCode::configuration,
                "data.weights must be finite numbers, none of them negative and one above 0 at least");
  }
}

}  // namespace

struct TokenStream::Impl {
  std::int64_t context = 0;
  std::int64_t windows = 0;
  std::vector<Source> sources;
  RandomStream pool_keys{0};
  Pattern pattern;  // empty without weights

  Place place(std::int64_t position) const;
  Place in_pool(std::int64_t window) const;
};

Place TokenStream::Impl::in_pool(std::int64_t window) const {
  const auto after = std::upper_bound(sources.begin(), sources.end(), window,
                                      [](std::int64_t w, const Source& source) { return w < source.first; });
  const auto file = after - sources.begin() - 1;
  return {file, window - sources[static_cast<std::size_t>(file)].first};
}

Place TokenStream::Impl::place(std::int64_t position) const {
  const auto shuffled = [](std::int64_t turn, std::int64_t count, const RandomStream& keys) {
    const auto epoch = static_cast<std::uint64_t>(turn / count);
    return static_cast<std::int64_t>(permute(static_cast<std::uint64_t>(turn % count),
                                             static_cast<std::uint64_t>(count), keys.bits(epoch)));
  };
  if (pattern.slots.empty()) return in_pool(shuffled(position, windows, pool_keys));
  const auto length = std::ssize(pattern.slots);
  const auto [file, earlier] = pattern.slots[static_cast<std::size_t>(position % length)];
  const auto& source = sources[static_cast<std::size_t>(file)];
  const auto turn = position / length * pattern.owned[static_cast<std::size_t>(file)] + earlier;
  return {file, shuffled(turn, source.windows, source.keys)};
}

TokenStream::TokenStream(const StreamSettings& settings) : impl_(std::make_unique<Impl>()) {
  auto& my = *impl_;
  expect(settings.context > 0, "a token stream needs a context above 0");
  if (settings.prefixes.empty())
    throw Error(ExitCode::configuration, "no token file is named: fill in data.train and data.valid");
  check_weights(settings);
  my.context = settings.context;
  my.pool_keys = RandomStream(settings.seed, "data.order");
  for (const auto& prefix : settings.prefixes) {
    TokenFile file(prefix);
    const std::int64_t windows = (std::max<std::int64_t>(file.tokens(), 1) - 1) / settings.context;
    if (windows == 0) {
      throw Error(
          ExitCode::configuration,
          fmt::format(
              "{} holds {} tokens, fewer than the {} of one sequence (model.context {} and one more): "
              "prepare more text or lower model.context",
              prefix, file.tokens(), settings.context + 1, settings.context));
    }
    my.sources.push_back({std::move(file), windows, my.windows,
                          RandomStream(settings.seed, fmt::format("data.order.{}", my.sources.size()))});
    my.windows += windows;
  }
  if (!settings.weights.empty()) my.pattern = make_pattern(settings.weights);
}

TokenStream::~TokenStream() = default;

std::int64_t TokenStream::windows() const { return impl_->windows; }

std::vector<std::int64_t> TokenStream::tokens() const {
  std::vector<std::int64_t> tokens;
  for (const auto& source : impl_->sources) tokens.push_back(source.file.tokens());
  return tokens;
}

std::string TokenStream::sample_digest() const {
  constexpr std::int64_t pieces_in_all = 256, least_of_a_file = 4;
  const auto pieces = std::max(pieces_in_all / std::ssize(impl_->sources), least_of_a_file);
  std::array<std::int32_t, 64> piece;
  Digest digest;
  for (const auto& [file, windows, first, keys] : impl_->sources) {
    const auto count = std::min<std::int64_t>(file.tokens(), std::ssize(piece));
    const auto part = std::span(piece).first(static_cast<std::size_t>(count));
    for (std::int64_t i = 0; i < pieces; ++i) {
      file.read((file.tokens() - count) * i / (pieces - 1), part);
      digest.update(std::as_bytes(part));
    }
  }
  return digest.hex();
}

void TokenStream::read(std::int64_t position, std::int64_t count, std::span<std::int32_t> tokens,
                       std::span<std::int32_t> targets) const {
  const auto& my = *impl_;
  expect(position >= 0 && count >= 0, "sequences before the start of the run were asked for");
  expect(std::ssize(tokens) == count * my.context && std::ssize(targets) == count * my.context,
         "buffers of another size than [count, context] were given to a token stream");
  const auto width = static_cast<std::size_t>(my.context);
  for (std::int64_t i = 0; i < count; ++i) {
    const auto [file, window] = my.place(position + i);
    const auto& source = my.sources[static_cast<std::size_t>(file)].file;
    const auto at = static_cast<std::size_t>(i) * width;
    source.read(window * my.context, tokens.subspan(at, width));
    std::copy_n(tokens.begin() + static_cast<std::ptrdiff_t>(at) + 1, width - 1,
                targets.begin() + static_cast<std::ptrdiff_t>(at));
    source.read((window + 1) * my.context, targets.subspan(at + width - 1, 1));
  }
}

}  // namespace smlp
