// Every verb on shapes large enough for several blocks, tiles and passes, and every rule of routing, against
// the CPU backend. The tests of tests/tensor, which run here too, look at small shapes against plain loops.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>

#include "tensor/backend.h"
#include "tests/tensor/field.h"

namespace smlp::test {
namespace {

using Counts = std::vector<std::int64_t>;
using Views = std::vector<TensorView>;

class AgainstCpu : public testing::TestWithParam<DType> {
 protected:
  DType type() const { return GetParam(); }
  double tolerance() const { return type() == DType::f32 ? 2e-5 : 2e-2; }

  Field random(Shape shape, DType of, std::uint64_t seed, double scale = 1, std::int64_t gap = 0) const {
    Field field(shape, of, gap, gap > 0 ? 1 : 0);
    field.randomize(seed, scale);
    return field;
  }
  Field random(Shape shape, std::uint64_t seed, double scale = 1, std::int64_t gap = 0) const {
    return random(shape, type(), seed, scale, gap);
  }
  // Numbers from `least` on, below `end`.
  Field indices(Shape shape, std::uint64_t seed, std::int64_t least, std::int64_t end) const {
    Field field(shape, DType::i32, 0, 0);
    Field fractions = random(shape, DType::f64, seed, 0.5);
    std::vector<double> values = fractions.get();
    for (auto& v : values)
      v = std::floor(static_cast<double>(least) + (v + 0.5) * static_cast<double>(end - least));
    field.set(values);
    return field;
  }

  // Runs the call with each backend on fields of its own, and compares all of them, and the counts it
  // returns.
  void compare(const char* what, std::vector<Field> fields, double tolerance,
               const std::function<Counts(Backend&, Views&)>& call) {
    SCOPED_TRACE(what);
    std::vector<Field> others = fields;
    const auto run = [&](Backend& backend, std::vector<Field>& all) {
      Views views;
      for (auto& field : all) views.push_back(field.view());
      Counts counts = call(backend, views);
      backend.synchronize();
      return counts;
    };
    const Counts wanted = run(*cpu_, fields);
    EXPECT_EQ(run(*cuda_, others), wanted);
    for (std::size_t i = 0; i < fields.size(); ++i) {
      SCOPED_TRACE(testing::Message() << "field " << i);
      expect_close(what, others[i].get(), fields[i].get(), tolerance);
      EXPECT_TRUE(others[i].guards_intact());
    }
  }

  std::unique_ptr<Backend> cpu_ = make_cpu_backend(), cuda_ = make_cuda_backend();
};

INSTANTIATE_TEST_SUITE_P(In, AgainstCpu, testing::Values(DType::f32, DType::bf16, DType::f16),
                         [](const auto& info) { return std::string(name_of(info.param)); });

TEST_P(AgainstCpu, RowsAreNormalisedWhateverTheirWidth) {
  // Parts that a few lanes, a warp or a block hold in registers, and one that no block holds.
  constexpr std::array kinds{Activation::gelu_tanh, Activation::none, Activation::gelu, Activation::relu};
  std::size_t turn = 0;
  for (const std::int64_t width : {8, 64, 96, 200, 1000, 1024, 1032, 2040, 2048, 2057, 4100, 4104, 8208}) {
    // More rows than one block sums down; of wide ones some, for a block has one or two of them at a time.
    const std::int64_t rows = width < 2000 ? 70 : 14, groups = width == 2048 ? 2 : width == 96 ? 6 : 1;
    const Activation kind = kinds[turn++ % kinds.size()];
    for (const std::int64_t gap : {0, 3}) {
      compare("layer_norm",
              {random({rows, width}, 1, 2, gap), random({width}, 2), random({width}, 3),
               random({rows, width}, 4, 1, gap), random({rows, groups}, DType::f32, 5),
               random({rows, groups}, DType::f32, 6), random({rows, width}, 7, 1, gap),
               random({rows, width}, 8, 1, gap), random({rows, width}, 9, 1, gap),
               random({width}, DType::f32, 10), random({width}, DType::f32, 11)},
              10 * tolerance(), [&](Backend& b, Views& v) {
                const Normalisation n{v[0], v[1], v[2], groups, v[4], v[5], kind};
                b.layer_norm(n, v[3]);
                b.layer_norm_backward(n, v[6], v[7], v[8], v[9], v[10]);
                return Counts{};
              });
    }
  }
}

TEST_P(AgainstCpu, RunsOfRowsAreNormalisedByLinesOfTheirOwn) {
  for (const auto& [lines, run, width, groups] : {std::array<std::int64_t, 4>{3, 70, 64, 1}, {32, 5, 40, 1}, {4, 200, 34, 2}}) {
    const std::int64_t rows = lines * run;
    compare("layer_norm, lines",
            {random({rows, width}, 1, 2, 2), random({lines, width}, 2), random({lines, width}, 3), random({rows, width}, 4),
             random({rows, groups}, DType::f32, 5), random({rows, groups}, DType::f32, 6), random({rows, width}, 7, 1, 2),
             random({rows, width}, 8), random({lines, width}, DType::f32, 9), random({lines, width}, DType::f32, 10)},
            10 * tolerance(), [&](Backend& b, Views& v) {
              const Normalisation n{v[0], v[1], v[2], groups, v[4], v[5]};
              b.layer_norm(n, v[3]);
              b.layer_norm_backward(n, v[6], {}, v[7], v[8], v[9]);
              return Counts{};
            });
  }
}

// More than all threads of the largest grid ask for at once, and a rest.
TEST_P(AgainstCpu, SumsOfMillions) {
  const std::int64_t packs = std::int64_t{1024} * 256 * 4 + 70'000;
  compare("sum of squares", {random({packs * 16 / size_of(type())}, 1), random({1}, DType::f64, 3)}, 1e-6,
          [](Backend& b, Views& v) {
            b.sum_of_squares(v[0], v[1]);
            return Counts{};
          });
}

TEST_P(AgainstCpu, SumsOverManyRows) {
  for (const auto& [rows, width] :
       {std::pair<std::int64_t, std::int64_t>{1000, 40}, {130, 3000}, {257, 65}}) {
    compare("sums", {random({rows, width}, 1), random({width}, DType::f32, 2), random({1}, DType::f64, 3)},
            10 * tolerance(), [](Backend& b, Views& v) {
              b.sum_rows(v[0], v[1]);
              b.sum(v[0], v[2]);
              b.sum_of_squares(v[0], v[2]);
              return Counts{};
            });
  }
}

TEST_P(AgainstCpu, GatesAndColumnsOfManySequences) {
  const std::int64_t sequences = 5, length = 40;
  for (const std::int64_t channels : {48, 50}) {
    const Shape shape{sequences, length, channels};
    Field order({sequences, channels}, DType::i32, 0, 0);
    std::vector<double> places;
    for (std::int64_t b = 0; b < sequences; ++b) {
      for (std::int64_t c = 0; c < channels; ++c)
        places.push_back(static_cast<double>((c * 7 + b) % channels));
    }
    order.set(places);
    compare("gate",
            {random(shape, 1), random(shape, 2), random({2, length}, 3), random(shape, 4), random(shape, 5),
             random(shape, 6), random({2, length}, DType::f32, 7), order, random({sequences, channels}, 8),
             random(shape, 9), random(shape, 10), random({sequences, channels}, DType::f32, 11)},
            10 * tolerance(), [](Backend& b, Views& v) {
              const Gating g{v[0], v[1], v[2], v[3], Activation::gelu_tanh};
              b.gate(g);
              b.gate_backward(g, v[3], v[4], v[5], v[6]);
              b.gather_columns(v[0], v[7], v[8], v[9]);
              b.scatter_columns(v[0], v[7], {}, v[10]);
              b.column_dots(v[0], v[3], v[11]);
              return Counts{};
            });
  }
}

TEST_P(AgainstCpu, RowsThatShareAPlaceAreAddedWhereverTheyLie) {
  for (const auto& [rows, places] :
       {std::pair<std::int64_t, std::int64_t>{9000, 70000}, {5000, 3}, {300, 300}}) {
    const std::int64_t width = places > 1000 ? 3 : 20;
    compare("rows by index",
            {random({places, width}, 1), indices({rows}, 2, -2, places), random({rows, width}, 3),
             random({rows}, 4), random({places, width}, DType::f32, 5), random({rows, width}, 6),
             random({rows}, DType::f32, 7)},
            rows == 5000 ? 1e-2 : tolerance(), [](Backend& b, Views& v) {
              b.gather_rows(v[0], v[1], 2, v[3], v[2]);
              b.scatter_add_rows(v[5], v[1], Repeats::possible, 0.5, v[3], v[4]);
              b.row_dots(v[5], v[0], v[1], v[6]);
              return Counts{};
            });
  }
}

TEST_P(AgainstCpu, LossAndUpdate) {
  for (const std::int64_t vocabulary : {2048, 3001}) {
    Field scale({1}, DType::f64, 0, 0);
    scale.fill(0.01);
    compare("cross_entropy",
            {random({30, vocabulary}, 1, 6), indices({30}, 2, -1, vocabulary), random({30}, DType::f64, 3),
             scale},
            tolerance(), [](Backend& b, Views& v) {
              b.cross_entropy(v[0], v[1], v[2], v[3], true);
              return Counts{};
            });
  }
  for (const std::int64_t count : {4096, 5001}) {
    Field second = random({count}, DType::f32, 5), control({StepControl::size}, DType::f64, 0, 0);
    std::vector<double> squares = second.get();
    for (auto& s : squares) s = std::abs(s);
    second.set(squares);
    control.set({1e-2, 0.7, 30, 0.5});
    compare("adamw",
            {random({count}, 1), random({count}, DType::f32, 2), random({count}, DType::f32, 3),
             random({count}, DType::f32, 4), second, control},
            tolerance(), [&](Backend& b, Views& v) {
              b.adamw({.weight_decay = 0.1, .clip_norm = 1}, v[0], type() == DType::f32 ? TensorView{} : v[1],
                      v[2], v[3], v[4], v[5]);
              return Counts{};
            });
  }
}

TEST_P(AgainstCpu, MovesOfManyKinds) {
  std::vector<RowBlock> blocks;
  for (std::int64_t i = 0; i < 100; ++i) blocks.push_back({i * 3, (99 - i) * 3, i % 4});
  for (const std::int64_t width : {16, 17}) {
    compare("moves",
            {random({300, width}, 1), random({300, width}, 2), random({300, width}, DType::f32, 3),
             random({300, width}, 4, 1, 1)},
            0, [&](Backend& b, Views& v) {
              b.copy_rows(v[0], v[1], blocks);
              b.copy(v[0], v[2]);
              b.add(v[0], v[1], v[3]);
              return Counts{};
            });
  }
}

class AuctionAgainstCpu : public AgainstCpu {};
INSTANTIATE_TEST_SUITE_P(In, AuctionAgainstCpu, testing::Values(DType::f32),
                         [](const auto& info) { return std::string(name_of(info.param)); });

// Who is chosen depends on exact comparisons: the same on every backend, bit by bit.
TEST_P(AuctionAgainstCpu, BalancedAssignmentsAreTheSame) {
  struct Sizes {
    std::int64_t tokens, experts, groups;
  };
  for (const auto& s : {Sizes{64, 4, 1}, Sizes{300, 7, 2}, Sizes{512, 16, 3}, Sizes{5, 8, 1}, Sizes{1, 1, 4},
                        Sizes{256, 2, 1}}) {
    const std::int64_t capacity = (s.tokens + s.experts - 1) / s.experts;
    for (const double spread : {1.0, 0.0, 1e-3}) {
      SCOPED_TRACE(testing::Message()
                   << s.tokens << " tokens, " << s.experts << " experts, spread " << spread);
      Field scores = random({s.groups * s.tokens, s.experts}, 3, spread, 2);
      std::vector<double> values = scores.get();
      values[0] = std::nan("");
      if (values.size() > 9) values[9] = INFINITY;
      for (std::size_t i = 20; i < values.size(); i += 7) values[i] = values[i - 1];  // ties
      scores.set(values);
      compare("assign_balanced",
              {scores, Field({s.experts, s.groups, capacity}, DType::i32, 0, 0),
               Field({s.groups}, DType::i32, 0, 0)},
              0, [&](Backend& b, Views& v) {
                b.assign_balanced(v[0], s.groups, v[1], v[2]);
                return Counts{};
              });
    }
  }
}

// A block holds the keys of 4,096 tokens between its rounds, and reads those of the others again.
TEST_P(AuctionAgainstCpu, GroupsOfMoreTokensThanABlockHoldsAreAssignedAlike) {
  const std::int64_t tokens = 4100, experts = 2;
  compare("assign_balanced",
          {random({tokens, experts}, 5, 1e-3), Field({experts, 1, tokens / experts}, DType::i32, 0, 0), Field({1}, DType::i32, 0, 0)},
          0, [](Backend& b, Views& v) {
            b.assign_balanced(v[0], 1, v[1], v[2]);
            return Counts{};
          });
}

TEST_P(AuctionAgainstCpu, AnAuctionThatMeetsItsLimitIsFinishedGreedilyAlike) {
  Field scores({10, 2}, type(), 0, 0);
  scores.fill(1e22);  // so large that no price changes them
  compare("assign_balanced", {scores, Field({2, 1, 5}, DType::i32, 0, 0), Field({1}, DType::i32, 0, 0)}, 0,
          [](Backend& b, Views& v) {
            b.assign_balanced(v[0], 1, v[1], v[2]);
            std::int32_t rounds = 0;
            b.download(v[2], &rounds);
            EXPECT_LT(rounds, 0);
            return Counts{};
          });
}

TEST_P(AgainstCpu, GreedyAssignmentsAndGatesOfSlots) {
  for (const auto& [tokens, experts] :
       {std::pair<std::int64_t, std::int64_t>{300, 1}, {5000, 5}, {400, 300}}) {
    const auto call = [count = experts](Backend& b, Views& v) {
      Counts rows(static_cast<std::size_t>(count));
      b.assign_greedy(v[0], v[1], rows);
      b.sigmoid_of_slots(v[0], v[1], rows, v[2]);
      b.sigmoid_of_slots_backward(v[2], v[3], v[1], rows, v[4]);
      b.softmax_of_slots(v[5], v[1], rows, v[6]);
      b.softmax_of_slots_backward(v[5], v[6], v[1], rows, v[7]);
      return rows;
    };
    compare("greedy",
            {random({tokens, experts}, 1, 1, 1), Field({tokens}, DType::i32, 0, 0), random({tokens}, 2),
             random({tokens}, 3), random({tokens, experts}, DType::f32, 4),
             random({tokens, experts}, DType::f32, 5), random({tokens}, DType::f32, 6),
             random({tokens, experts}, DType::f32, 7)},
            tolerance(), call);
  }
}

TEST_P(AgainstCpu, SlotsThatShareATokenAddUpInOrder) {
  Field slots({6}, DType::i32, 0, 0);
  slots.set({3, 1, 3, -1, 3, 0});
  compare("softmax_of_slots_backward",
          {random({4, 3}, DType::f32, 1), slots, random({6}, DType::f32, 2), random({4, 3}, DType::f32, 3)},
          1e-6, [](Backend& b, Views& v) {
            const Counts rows = {2, 2, 2};
            b.softmax_of_slots_backward(v[0], v[2], v[1], rows, v[3]);
            return rows;
          });
}

class RoutingAgainstCpu : public AgainstCpu {};
INSTANTIATE_TEST_SUITE_P(In, RoutingAgainstCpu, testing::Values(DType::f32, DType::f64),
                         [](const auto& info) { return std::string(name_of(info.param)); });

TEST_P(RoutingAgainstCpu, SoftmaxGatesOfEveryRule) {
  const std::int64_t tokens = 210, experts = 40, group_rows = 70;
  int turn = 0;
  for (const std::int64_t choices : {1, 2}) {
    for (const auto second : {SecondChoice::all, SecondChoice::sampling, SecondChoice::random,
                              SecondChoice::threshold, SecondChoice::none}) {
      for (const auto order :
           {PlaceOrder::position, PlaceOrder::gate, PlaceOrder::random, PlaceOrder::choice_gate}) {
        const bool compact = ++turn % 2 == 0, sampled = turn % 3 == 0;
        const auto normalise = static_cast<Normalise>(turn % 3);
        const std::int64_t capacity = 4, slots = compact ? tokens * choices : experts * 3 * capacity;
        SCOPED_TRACE(testing::Message() << choices << " choices, second " << int(second) << ", order "
                                        << int(order) << ", compact " << compact);
        Field logits = random({tokens, experts}, static_cast<std::uint64_t>(turn), 2, 1),
              one({1}, DType::f64, 0, 0);
        std::vector<double> values = logits.get();
        for (std::size_t i = 41; i < values.size(); i += 9) values[i] = values[i - 1];  // ties
        values[7] = values[8] = -INFINITY;
        logits.set(values);
        one.fill(0.5);
        compare("softmax gates",
                {logits, Field({tokens, experts}, type(), 2), Field({tokens}, DType::f64, 0, 0),
                 Field({tokens, choices}, DType::i32, 0, 0), random({3, experts}, DType::f64, 1),
                 random({3, 2}, DType::f64, 2), Field({slots}, DType::i32, 0, 0),
                 Field({tokens, choices}, DType::i32, 0, 0), one, Field({slots}, type(), 0, 0),
                 random({slots}, 3), random({tokens, experts}, 4, 1, 1), Field({experts}, DType::f64, 0, 0)},
                type() == DType::f64 ? 1e-12 : 1e-6, [&](Backend& b, Views& v) {
                  const ChoiceNoise noise{77, 1000};
                  b.fill(v[12], 0.5);
                  b.choose_experts({.logits = v[0],
                                    .first = sampled ? FirstChoice::sampling : FirstChoice::best,
                                    .second = second,
                                    .threshold = 0.05,
                                    .compare_normalised = sampled,
                                    .noise = noise,
                                    .gates = v[1],
                                    .log_sum = v[2],
                                    .expert = v[3]});
                  b.balance_of_choices({.gates = v[1],
                                        .log_sum = v[2],
                                        .expert = v[3],
                                        .group_rows = group_rows,
                                        .every_choice = compact,
                                        .share = 0.25,
                                        .frequency = v[4],
                                        .add_to = v[5]});
                  Counts rows(compact ? static_cast<std::size_t>(experts) : 0);
                  b.place_tokens({.expert = v[3],
                                  .experts = experts,
                                  .group_rows = compact ? 80 : group_rows,
                                  .capacity = capacity,
                                  .last_capacity = 2,
                                  .order = order,
                                  .gates = v[1],
                                  .noise = noise,
                                  .rows_of_expert = rows,
                                  .token_of_slot = v[6],
                                  .slot = v[7],
                                  .dropped = v[8],
                                  .taken = v[12]});
                  b.weigh_slots(
                      {.gates = v[1], .expert = v[3], .slot = v[7], .normalise = normalise, .weight = v[9]});
                  b.choices_backward({.gates = v[1],
                                      .expert = v[3],
                                      .slot = v[7],
                                      .normalise = normalise,
                                      .dweight = v[10],
                                      .frequency = v[4],
                                      .log_sum = v[2],
                                      .auxiliary = v[5],
                                      .row_scale = v[8],
                                      .balance_weight = 0.3,
                                      .negative_log = sampled,
                                      .z_weight = 0.1,
                                      .dlogits = v[11]});
                  return rows;
                });
      }
    }
  }
}

TEST_P(RoutingAgainstCpu, SigmoidGatesBiasesAndShares) {
  const std::int64_t tokens = 160, experts = 37, group_rows = 80, slots = tokens * 2;
  for (const int turn : {0, 1, 2, 3}) {
    SCOPED_TRACE(testing::Message() << "turn " << turn);
    const bool sigmoid = turn != 1, biased = turn == 2;
    Field one({1}, DType::f64, 0, 0), logits = random({tokens, experts}, 5, 2, 1);
    std::vector<double> values = logits.get();
    values[3] = -INFINITY;
    logits.set(values);
    one.fill(0.5);
    compare(
        "choices",
        {logits, Field({tokens, experts}, type(), 2), Field({tokens}, DType::f64, 0, 0),
         Field({tokens, 2}, DType::i32, 0, 0), random({2, experts}, DType::f64, 1),
         random({2, 2}, DType::f64, 2), Field({slots}, DType::i32, 0, 0),
         Field({tokens, 2}, DType::i32, 0, 0), one, random({slots}, 3), random({tokens, experts}, 4, 1, 1),
         indices({experts}, 6, -90, 90), Field({2}, DType::i32, 0, 0)},
        type() == DType::f64 ? 1e-11 : 1e-6, [&](Backend& b, Views& v) {
          const GateKind kind = sigmoid ? GateKind::sigmoid : GateKind::softmax;
          b.fill(v[12], 0);
          b.choose_experts({.logits = v[0],
                            .kind = kind,
                            .first = turn % 2 == 1 ? FirstChoice::sinkhorn : FirstChoice::best,
                            .second = SecondChoice::all,
                            .bias = biased ? v[11] : TensorView{},
                            .bias_unit = 1e-3,
                            .group_rows = group_rows,
                            .rounds = v[12],
                            .gates = v[1],
                            .log_sum = v[2],
                            .expert = v[3]});
          b.balance_of_choices({.gates = v[1],
                                .log_sum = v[2],
                                .expert = v[3],
                                .kind = kind,
                                .group_rows = group_rows,
                                .frequency = v[4],
                                .add_to = v[5]});
          Counts rows(static_cast<std::size_t>(experts));
          b.place_tokens({.expert = v[3],
                          .experts = experts,
                          .group_rows = group_rows,
                          .rows_of_expert = rows,
                          .token_of_slot = v[6],
                          .slot = v[7],
                          .dropped = v[8]});
          b.choices_backward({.gates = v[1],
                              .expert = v[3],
                              .slot = v[7],
                              .kind = kind,
                              .logits = v[0],
                              .normalise = Normalise::before_dropping,
                              .dweight = v[9],
                              .frequency = v[4],
                              .log_sum = v[2],
                              .auxiliary = v[5],
                              .row_scale = v[8],
                              .balance_weight = 0.3,
                              .z_weight = turn == 3 ? 0 : 0.1,
                              .dlogits = v[10]});
          return rows;
        });
  }
}

TEST_P(RoutingAgainstCpu, PlacesOfManyTokens) {
  const std::int64_t tokens = 6000, experts = 70;
  Counts rows(static_cast<std::size_t>(experts));
  compare("place_tokens",
          {indices({tokens, 2}, 1, -3, experts), Field({tokens * 2}, DType::i32, 0, 0),
           random({tokens, experts}, 2, 0.5), Field({experts}, DType::f64, 0, 0)},
          0, [&](Backend& b, Views& v) {
            b.fill(v[3], 0);
            b.place_tokens({.expert = v[0],
                            .experts = experts,
                            .group_rows = 7,
                            .capacity = 1,
                            .last_capacity = -1,
                            .order = PlaceOrder::choice_gate,
                            .gates = v[2],
                            .rows_of_expert = rows,
                            .token_of_slot = v[1],
                            .taken = v[3]});
            return rows;
          });
}

}  // namespace
}  // namespace smlp::test
