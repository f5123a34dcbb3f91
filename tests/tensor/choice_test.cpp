// Verbs of softmax gates, jitter and tables on every type and instruction set. The rules themselves are tested through
// the routers (tests/routing).
#include <cmath>

#include "tensor/dropout.h"
#include "tests/tensor/verb_case.h"

namespace smlp::test {
namespace {

class ChoiceVerbs : public Verbs {};
INSTANTIATE_TEST_SUITE_P(On, ChoiceVerbs, testing::ValuesIn(verb_cases()), case_name);

TEST_P(ChoiceVerbs, JitterMultipliesByTheWordsOfTheStream) {
  for (const std::int64_t width : {1, 5, 33}) {
    Field in = values({9, width}, 1, 2, 3), out({9, width}, type(), 2);
    const Values x = in.get();
    const std::int64_t first_row = 7;
    Values wanted(x.size());
    for (std::size_t i = 0; i < x.size(); ++i) {
      const std::uint64_t element = static_cast<std::uint64_t>(first_row * width) + i;
      const double fraction = dropout_word(5, element) * 0x1p-32;
      wanted[i] = x[i] * (1 + 0.25 * (2 * fraction - 1));
    }
    b_.jitter(in.view(), 0.25, 5, first_row, out.view());
    check("jitter", out, wanted);
    b_.jitter(in.view(), 0.25, 5, first_row, in.view());
    check("jitter in place", in, wanted);
  }
}

TEST_P(ChoiceVerbs, GatesAreTheSoftmaxAndTheirGradientIsThatOfTheWeights) {
  const std::int64_t tokens = 6, experts = 3;
  Field logits = values({tokens, experts}, 1, 2, 2), gates({tokens, experts}, type(), 1), log_sum({tokens}, DType::f64, 0, 0);
  Field expert({tokens, 2}, DType::i32, 0, 0), slot({tokens, 2}, DType::i32, 0, 0);
  ChooseExperts choose{.logits = logits.view(), .gates = gates.view(), .log_sum = log_sum.view(), .expert = expert.view()};
  if (narrow()) {
    EXPECT_THROW(b_.choose_experts(choose), Error) << "gates are wide";
    return;
  }
  b_.choose_experts(choose);
  const Values x = logits.get();
  Values p(x.size()), sums(6);
  for (std::size_t s = 0; s < 6; ++s) {
    double sum = 0;
    for (std::size_t e = 0; e < 3; ++e) sum += std::exp(x[s * 3 + e]);
    for (std::size_t e = 0; e < 3; ++e) p[s * 3 + e] = std::exp(x[s * 3 + e]) / sum;
    sums[s] = std::log(sum);
  }
  check("gates", gates, p);
  expect_close("log_sum", log_sum.get(), sums, 1e-12);

  std::vector<std::int64_t> rows(3);
  Field token_of_slot({tokens * 2}, DType::i32, 0, 0), dropped({1}, DType::f64, 0, 0);
  Field taken({experts}, DType::f64, 0, 0);
  dropped.fill(3);
  taken.fill(1);
  b_.place_tokens({.expert = expert.view(), .experts = experts, .group_rows = tokens, .rows_of_expert = rows,
                   .token_of_slot = token_of_slot.view(), .slot = slot.view(), .dropped = dropped.view(), .taken = taken.view()});
  EXPECT_EQ(rows[0] + rows[1] + rows[2], 12);
  for (std::size_t e = 0; e < 3; ++e) EXPECT_EQ(taken.get()[e], static_cast<double>(1 + rows[e])) << "adds";
  EXPECT_EQ(dropped.get()[0], 3) << "adds";
  Field weight({12}, type(), 0, 0), dweight = values({12}, 4), dlogits({tokens, experts}, type(), 2);
  b_.weigh_slots({.gates = gates.view(), .expert = expert.view(), .slot = slot.view(), .weight = weight.view()});
  b_.choices_backward({.gates = gates.view(), .expert = expert.view(), .slot = slot.view(), .dweight = dweight.view(),
                       .dlogits = dlogits.view()});
  const Values g = gates.get(), w = weight.get(), dw = dweight.get(), e = expert.get(), at = slot.get();
  Values wanted_weight(12), wanted(18, 0);
  for (std::size_t i = 0; i < 12; ++i) {
    const std::size_t s = i / 2, chosen = s * 3 + static_cast<std::size_t>(e[i]), place = static_cast<std::size_t>(at[i]);
    wanted_weight[place] = g[chosen];
    for (std::size_t c = 0; c < 3; ++c) {
      wanted[s * 3 + c] += dw[place] * g[chosen] * ((s * 3 + c == chosen ? 1 : 0) - g[s * 3 + c]);
    }
  }
  expect_close("weight", w, wanted_weight, 0);
  check("dlogits", dlogits, wanted);
}

TEST_P(ChoiceVerbs, TablesAreLookedUpAndBadCallsAreRefused) {
  Field table({4}, DType::i32, 0, 0), index({3}, DType::i32, 0, 0), out({3}, DType::i32, 0, 0);
  table.set({2, 0, 1, 1});
  index.set({3, 0, 0});
  b_.look_up(table.view(), index.view(), out.view());
  EXPECT_EQ(out.get(), (Values{1, 2, 2}));
  index.set({3, 4, 0});
  EXPECT_THROW(finished([&] { b_.look_up(table.view(), index.view(), out.view()); }), Error);
  index.set({3, -1, 0});
  EXPECT_THROW(finished([&] { b_.look_up(table.view(), index.view(), out.view()); }), Error);

  Field expert({4, 1}, DType::i32, 0, 0), slots({6}, DType::i32, 0, 0), taken({3}, DType::f64, 0, 0);
  expert.set({0, 1, 2, 0});
  PlaceTokens place{.expert = expert.view(), .experts = 3, .group_rows = 4, .capacity = 2, .token_of_slot = slots.view()};
  place.taken = taken.view();
  b_.place_tokens(place);
  EXPECT_EQ(slots.get(), (Values{0, 3, 1, -1, 2, -1}));
  EXPECT_EQ(taken.get(), (Values{2, 1, 1}));
  place.group_rows = 3;  // the fixed layout needs whole groups
  EXPECT_THROW(b_.place_tokens(place), Error);
  place.group_rows = 4;
  place.capacity = -1;
  EXPECT_THROW(b_.place_tokens(place), Error);
  place.capacity = 2;
  place.experts = 2;
  EXPECT_THROW(finished([&] { b_.place_tokens(place); }), Error);
}

}  // namespace
}  // namespace smlp::test
