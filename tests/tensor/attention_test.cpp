// Causal attention against plain loops in f64: views of wider rows, lengths of one block and of several.
#include <cmath>

#include "tests/tensor/verb_case.h"

namespace smlp::test {
namespace {

class AttentionVerbs : public Verbs {};
INSTANTIATE_TEST_SUITE_P(On, AttentionVerbs, testing::ValuesIn(verb_cases()), case_name);

struct Sizes {
  std::int64_t sequences, length, heads, width;  // width: of one head
  bool packs = false;
  std::int64_t channels() const { return heads * width; }
};

struct Wanted {
  std::vector<double> out, log_sum, dquery, dkey, dvalue;
};

Wanted attend(const Sizes& s, const std::vector<double>& q, const std::vector<double>& k, const std::vector<double>& v,
              const std::vector<double>& dout) {
  const auto size = static_cast<std::size_t>(s.sequences * s.length * s.channels());
  Wanted wanted{std::vector<double>(size, 0), {}, std::vector<double>(size, 0), std::vector<double>(size, 0),
                std::vector<double>(size, 0)};
  const double scale = 1 / std::sqrt(static_cast<double>(s.width));
  for (std::int64_t b = 0; b < s.sequences; ++b) {
    for (std::int64_t h = 0; h < s.heads; ++h) {
      const auto at = [&](std::int64_t t) { return static_cast<std::size_t>((b * s.length + t) * s.channels() + h * s.width); };
      for (std::int64_t t = 0; t < s.length; ++t) {
        std::vector<double> chance, slope;
        double sum = 0, dot = 0;
        for (std::int64_t u = 0; u <= t; ++u) {
          double score = 0, d = 0;
          for (std::size_t c = 0; c < static_cast<std::size_t>(s.width); ++c) {
            score += scale * q[at(t) + c] * k[at(u) + c];
            d += dout[at(t) + c] * v[at(u) + c];
          }
          chance.push_back(std::exp(score));
          slope.push_back(d);
          sum += chance.back();
        }
        wanted.log_sum.push_back(std::log(sum));
        for (std::size_t u = 0; u < chance.size(); ++u) dot += (chance[u] /= sum) * slope[u];
        for (std::int64_t u = 0; u <= t; ++u) {
          const double p = chance[static_cast<std::size_t>(u)];
          const double ds = scale * p * (slope[static_cast<std::size_t>(u)] - dot);
          for (std::size_t c = 0; c < static_cast<std::size_t>(s.width); ++c) {
            wanted.out[at(t) + c] += p * v[at(u) + c];
            wanted.dvalue[at(u) + c] += p * dout[at(t) + c];
            wanted.dquery[at(t) + c] += ds * k[at(u) + c];
            wanted.dkey[at(u) + c] += ds * q[at(t) + c];
          }
        }
      }
    }
  }
  return wanted;
}

// In packs: each row begins at a multiple of 16 bytes, as a library for flash attention wants it.
TEST_P(AttentionVerbs, AttendsToEarlierTokensAndComesBack) {
  for (const auto& s : {Sizes{1, 1, 1, 1}, Sizes{2, 7, 3, 5}, Sizes{2, 64, 2, 16}, Sizes{1, 128, 1, 8}, Sizes{1, 129, 2, 4},
                        Sizes{2, 300, 1, 12}, Sizes{0, 4, 2, 3}, Sizes{2, 64, 2, 16, true}, Sizes{3, 130, 3, 8, true},
                        Sizes{1, 2, 1, 64, true}, Sizes{2, 200, 1, 64, true}}) {
    SCOPED_TRACE(testing::Message() << "length " << s.length << ", " << s.heads << " heads of " << s.width);
    const std::int64_t channels = s.channels();
    const Shape shape{s.sequences, s.length, channels};
    const auto rows = [&](std::uint64_t seed, double scale, std::int64_t gap) {
      return s.packs ? values(shape, 3 * seed, scale, 8 * gap) : values(shape, seed, scale, gap);
    };
    Field q = rows(1, 2, 3), k = rows(2, 2, 1), v = rows(3, 1, 0), dout = rows(4, 1, 2);
    Field out = rows(5, 1, 1), log_sum({s.sequences, s.heads, s.length}, wide(), 0, s.packs ? 0 : 1);
    Field dq = rows(6, 1, 1), dk = rows(7, 1, 2), dv = rows(8, 1, 3);
    const Wanted wanted = attend(s, q.get(), k.get(), v.get(), dout.get());
    const Attention call{q.view(), k.view(), v.view(), out.view(), log_sum.view(), s.heads};
    b_.attention(call);
    check("out", out, wanted.out);
    check("log_sum", log_sum, wanted.log_sum, true);
    b_.attention_backward(call, dout.view(), dq.view(), dk.view(), dv.view());
    const double room = narrow() ? 3 : 2;  // probabilities, and out, are rounded once more
    for (const auto& [what, got, want] : {std::tuple{"dquery", &dq, &wanted.dquery}, {"dkey", &dk, &wanted.dkey},
                                          {"dvalue", &dv, &wanted.dvalue}}) {
      expect_close(what, got->get(), *want, room * tolerance());
      EXPECT_TRUE(got->guards_intact()) << what;
    }
  }
}

TEST_P(AttentionVerbs, TakesScoresThatWouldOverflow) {
  const Shape shape{1, 3, 2};
  Field q = values(shape, 1), k = values(shape, 2), v = values(shape, 3), out = values(shape, 4), log_sum({1, 1, 3}, wide());
  q.fill(1000);
  k.fill(1000);
  v.set({1, 2, 3, 4, 5, 6});
  b_.attention({q.view(), k.view(), v.view(), out.view(), log_sum.view(), 1});
  check("out", out, {1, 2, 2, 3, 3, 4});
}

TEST_P(AttentionVerbs, LaterTokensChangeNotABit) {
  for (const std::int64_t channels : {8, 64}) {  // in packs: the second
    const Shape shape{1, 140, channels};
    const std::size_t seen = 100 * static_cast<std::size_t>(channels);
    Field q = values(shape, 3), k = values(shape, 6), v = values(shape, 9), out = values(shape, 12), log_sum({1, 2, 140}, wide(), 0, 0);
    const auto run = [&] {
      b_.attention({q.view(), k.view(), v.view(), out.view(), log_sum.view(), 2});
      return out.get();
    };
    const Values before = run();
    for (Field* field : {&q, &k, &v}) {
      Values changed = field->get();
      for (std::size_t i = seen; i < changed.size(); ++i) changed[i] = 30 - changed[i];
      field->set(changed);
    }
    const Values after = run();
    for (std::size_t i = 0; i < seen; ++i) ASSERT_EQ(before[i], after[i]) << i;
    EXPECT_NE(before, after);
  }
}

TEST_P(AttentionVerbs, RefusesHeadsThatDoNotDivideTheChannels) {
  Field x = values({1, 2, 6}, 1), out = values({1, 2, 6}, 2), log_sum({1, 4, 2}, wide());
  EXPECT_THROW(b_.attention({x.view(), x.view(), x.view(), out.view(), log_sum.view(), 4}), Error);
}

}  // namespace
}  // namespace smlp::test
