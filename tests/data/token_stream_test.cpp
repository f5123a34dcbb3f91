#include "data/token_stream.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <memory>
#include <numeric>
#include <set>

#include "data/token_file_writer.h"
#include "tests/data/scratch.h"

namespace smlp::test {
namespace {

// `count` tokens that tell where they stand: first, first + 1, ...
std::string numbered(const Scratch& scratch, const std::string& name, std::int32_t first, std::size_t count) {
  std::vector<std::int32_t> tokens(count);
  std::iota(tokens.begin(), tokens.end(), first);
  TokenFileWriter writer(scratch / name, 1 << 20);
  writer.append(tokens);
  writer.finish();
  return scratch / name;
}

// First tokens of the sequences [position, position + count), after checking that each is a run with its
// targets.
std::vector<std::int32_t> starts(const TokenStream& stream, std::int64_t context, std::int64_t position,
                                 std::int64_t count) {
  std::vector<std::int32_t> tokens(static_cast<std::size_t>(count * context)), targets(tokens.size()), first;
  stream.read(position, count, tokens, targets);
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    EXPECT_EQ(targets[i], tokens[i] + 1);
    if (i % static_cast<std::size_t>(context) == 0)
      first.push_back(tokens[i]);
    else
      EXPECT_EQ(tokens[i], tokens[i - 1] + 1);
  }
  return first;
}

TEST(TokenStream, HoldsTheWholeWindowsOfEachFile) {
  const Scratch scratch;
  // 21 tokens hold two windows of 10 + 1, 20 only one; 11 exactly one.
  const StreamSettings settings{.prefixes = {numbered(scratch, "a", 0, 21), numbered(scratch, "b", 100, 20),
                                             numbered(scratch, "c", 200, 11)},
                                .context = 10};
  const TokenStream stream(settings);
  EXPECT_EQ(stream.windows(), 4);
  for (const std::int64_t epoch : {0, 1}) {
    auto first = starts(stream, 10, 4 * epoch, 4);
    std::sort(first.begin(), first.end());
    EXPECT_EQ(first, (std::vector<std::int32_t>{0, 10, 100, 200})) << epoch;
  }
}

TEST(TokenStream, VisitsEveryWindowOnceAnEpochInAnotherOrderEachTime) {
  const Scratch scratch;
  StreamSettings settings{.prefixes = {numbered(scratch, "a", 0, 1001), numbered(scratch, "b", 100000, 505)},
                          .context = 10,
                          .seed = 5};
  const TokenStream stream(settings);
  ASSERT_EQ(stream.windows(), 150);
  const auto first = starts(stream, 10, 0, 150), second = starts(stream, 10, 150, 150);
  EXPECT_NE(first, second);
  EXPECT_EQ(std::set(first.begin(), first.end()).size(), 150u);
  EXPECT_EQ(std::set(first.begin(), first.end()), std::set(second.begin(), second.end()));
  settings.seed = 6;
  EXPECT_NE(starts(TokenStream(settings), 10, 0, 150), first);
}

// A run that goes on must read on in the order that it began with, whatever version of smlp it began with.
TEST(TokenStream, HasTheOrderOfEarlierVersions) {
  const Scratch scratch;
  StreamSettings settings{.prefixes = {numbered(scratch, "a", 0, 1001), numbered(scratch, "b", 100000, 505)},
                          .context = 10,
                          .seed = 5};
  using Starts = std::vector<std::int32_t>;
  EXPECT_EQ(starts(TokenStream(settings), 10, 0, 8), (Starts{120, 10, 480, 20, 780, 880, 140, 610}));
  settings.weights = {1, 3};
  const Starts weighted = {100190, 150, 100460, 100040, 100240, 450, 100330, 100090};
  EXPECT_EQ(starts(TokenStream(settings), 10, 0, 8), weighted);
  settings.seed = 6;
  EXPECT_NE(starts(TokenStream(settings), 10, 0, 8), weighted) << "each seed has its own";
}

TEST(TokenStream, IsAFunctionOfThePosition) {
  const Scratch scratch;
  for (const std::vector<double>& weights : {std::vector<double>{}, std::vector<double>{0.3, 0.7}}) {
    const StreamSettings settings{
        .prefixes = {numbered(scratch, "a", 0, 777), numbered(scratch, "b", 100000, 3000)},
        .weights = weights,
        .context = 7,
        .seed = 1};
    const TokenStream one(settings), other(settings);
    const auto all = starts(one, 7, 0, 5000);
    for (const std::int64_t position : {4999, 17, 0, 4096, 333}) {
      EXPECT_EQ(starts(other, 7, position, 1)[0], all[static_cast<std::size_t>(position)]);
    }
    // Far away positions cost what near ones do.
    starts(one, 7, std::int64_t{1} << 50, 3);
  }
}

// What `ranks` ranks see together from `step` on, each taking its part of the global batch in micro-batches.
std::vector<std::int32_t> seen_by(int ranks, std::int64_t micro, const StreamSettings& settings,
                                  std::int64_t step, std::int64_t steps) {
  constexpr std::int64_t global = 12;
  std::vector<std::unique_ptr<TokenStream>> streams;
  for (int rank = 0; rank < ranks; ++rank) streams.push_back(std::make_unique<TokenStream>(settings));
  std::map<std::int64_t, std::int32_t> at;
  const std::int64_t share = global / ranks;
  for (std::int64_t s = step; s < step + steps; ++s) {
    for (int rank = ranks - 1; rank >= 0; --rank) {
      for (std::int64_t done = 0; done < share; done += micro) {
        const auto position = s * global + rank * share + done;
        const auto part = starts(*streams[static_cast<std::size_t>(rank)], settings.context, position, micro);
        for (std::size_t i = 0; i < part.size(); ++i) at[position + static_cast<std::int64_t>(i)] = part[i];
      }
    }
  }
  std::vector<std::int32_t> order;
  for (const auto& [position, start] : at) order.push_back(start);
  return order;
}

TEST(TokenStream, IsTheSameOnAnyNumberOfRanksAndAfterResuming) {
  const Scratch scratch;
  const auto a = numbered(scratch, "a", 0, 701), b = numbered(scratch, "b", 100000, 1501);
  for (const auto& weights : {std::vector<double>{}, std::vector<double>{1, 2}}) {
    const StreamSettings settings{.prefixes = {a, b}, .weights = weights, .context = 5, .seed = 2};
    constexpr std::int64_t steps =
        400;  // 4800 sequences: past epochs of 440 windows and a pattern of 4096 slots
    const auto whole = seen_by(1, 12, settings, 0, steps);
    ASSERT_EQ(whole.size(), 4800u);
    EXPECT_EQ(seen_by(2, 3, settings, 0, steps), whole);
    EXPECT_EQ(seen_by(4, 1, settings, 0, steps), whole);
    EXPECT_EQ(seen_by(12, 1, settings, 0, steps), whole);
    for (const std::int64_t step :
         {1, 36, 37, 341, 342, 399}) {  // 36: an epoch ends inside; 341: the pattern
      EXPECT_EQ(seen_by(3, 2, settings, step, steps - step),
                std::vector<std::int32_t>(whole.begin() + 12 * step, whole.end()))
          << step;
    }
  }
}

TEST(TokenStream, GivesEveryTokenOnceAnEpoch) {
  const Scratch scratch;
  const StreamSettings settings{
      .prefixes = {numbered(scratch, "a", 0, 701), numbered(scratch, "b", 100000, 1501)}, .context = 5};
  const TokenStream stream(settings);
  ASSERT_EQ(stream.windows(), 440);
  for (std::int64_t epoch = 0; epoch < 3; ++epoch) {
    std::vector<std::int32_t> tokens(440 * 5), targets(tokens.size()), expected(tokens.size());
    stream.read(440 * epoch, 440, tokens, targets);
    std::sort(targets.begin(), targets.end());
    std::iota(expected.begin(), expected.begin() + 700, 1);
    std::iota(expected.begin() + 700, expected.end(), 100001);
    EXPECT_EQ(targets, expected);
  }
}

TEST(TokenStream, MixesFilesByWeightEvenlyAndKeepsTheirEpochs) {
  const Scratch scratch;
  const StreamSettings settings{
      .prefixes = {numbered(scratch, "a", 0, 101), numbered(scratch, "b", 100000, 50001),
                   numbered(scratch, "c", 300000, 501)},
      .weights = {2, 5, 3},
      .context = 10,
      .seed = 9};
  const TokenStream stream(settings);
  const auto order = starts(stream, 10, 0, 4096 * 3);
  std::array<std::int64_t, 3> taken{};
  std::vector<std::int32_t> small;
  for (std::size_t p = 0; p < order.size(); ++p) {
    const std::size_t file = order[p] < 100000 ? 0 : order[p] < 300000 ? 1 : 2;
    ++taken[file];
    if (file == 0) small.push_back(order[p]);
    const double done = static_cast<double>(p + 1);
    EXPECT_NEAR(static_cast<double>(taken[0]), 0.2 * done, 2.0);
    EXPECT_NEAR(static_cast<double>(taken[1]), 0.5 * done, 2.0);
    EXPECT_NEAR(static_cast<double>(taken[2]), 0.3 * done, 2.0);
  }
  for (std::size_t epoch = 0; epoch + 10 <= small.size(); epoch += 10) {  // 10 windows in file a
    EXPECT_EQ(std::set(small.begin() + static_cast<std::ptrdiff_t>(epoch),
                       small.begin() + static_cast<std::ptrdiff_t>(epoch) + 10)
                  .size(),
              10u);
  }
}

TEST(TokenStream, GivesTinyWeightsOneSlotAndZeroNone) {
  const Scratch scratch;
  StreamSettings settings{.prefixes = {numbered(scratch, "a", 0, 101), numbered(scratch, "b", 100000, 101),
                                       numbered(scratch, "c", 200000, 101)},
                          .weights = {1, 1e-9, 0},
                          .context = 10};
  std::map<std::int32_t, int> taken;
  for (const auto start : starts(TokenStream(settings), 10, 0, 4096)) ++taken[start / 100000];
  EXPECT_EQ(taken, (std::map<std::int32_t, int>{{0, 4095}, {1, 1}}));
}

// A digest of the lengths alone took other text of the same length for the run's own.
TEST(TokenStream, SamplesTellFilesOfOneLengthApart) {
  const Scratch scratch;
  const auto a = numbered(scratch, "a", 0, 50000), b = numbered(scratch, "b", 0, 30);
  const auto digest = [](const std::vector<std::string>& prefixes, std::int64_t context = 10) {
    return TokenStream({.prefixes = prefixes, .context = context}).sample_digest();
  };
  EXPECT_EQ(digest({a, b}), digest({a, b}, 20)) << "of the files, not of how a run reads them";
  EXPECT_NE(digest({a, b}), digest({numbered(scratch, "other", 1, 50000), b}));
  EXPECT_NE(digest({a, b}), digest({a, numbered(scratch, "short", 1, 30)}));
  EXPECT_NE(digest({a, b}), digest({b, a}));
  std::vector<std::int32_t> tokens(50000);
  std::iota(tokens.begin(), tokens.end(), 0);
  for (const auto changed : {std::size_t{0}, tokens.size() - 1}) {
    auto others = tokens;
    others[changed] = 7;
    TokenFileWriter writer(scratch / "ends", 1 << 20);
    writer.append(others);
    writer.finish();
    EXPECT_NE(digest({a}), digest({scratch / "ends"})) << changed;
  }
}

TEST(TokenStream, RefusesWhatCannotWork) {
  const Scratch scratch;
  const auto a = numbered(scratch, "a", 0, 10), b = numbered(scratch, "b", 0, 1000);
  const auto said = [](const StreamSettings& settings) {
    return refusal(ExitCode::configuration, [&] { TokenStream stream(settings); });
  };
  EXPECT_TRUE(contains(said({.prefixes = {b, a}, .context = 10}), "holds 10 tokens, fewer than the 11"));
  EXPECT_TRUE(contains(said({.prefixes = {}, .context = 10}), "no token file"));
  EXPECT_TRUE(contains(said({.prefixes = {a, b}, .weights = {1}, .context = 4}), "one a file"));
  const double nan = std::nan("");
  for (const auto& weights : std::vector<std::vector<double>>{{1, -1}, {0, 0}, {1, nan}, {1, HUGE_VAL}}) {
    EXPECT_TRUE(
        contains(said({.prefixes = {a, b}, .weights = weights, .context = 4}), "data.weights must be"));
  }
}

}  // namespace
}  // namespace smlp::test
