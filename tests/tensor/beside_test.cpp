// Downloads beside other work, and the clock of a step's phases.
#include <chrono>
#include <cstring>

#include "tests/tensor/verb_case.h"

namespace smlp::test {
namespace {

class BesideVerbs : public Verbs {};
INSTANTIATE_TEST_SUITE_P(On, BesideVerbs, testing::ValuesIn(verb_cases()), case_name);

TEST_P(BesideVerbs, DownloadsBringWhatTheCallsBeforeThemLeft) {
  Field a = values({5, 7}, 1), b = values({3}, 2), none({0, 4}, type());
  Field sum({5, 7}, type());
  Values wanted = a.get();
  const Values second = b.get();
  for (double& value : wanted) value = round_to(type(), 2 * value);
  const std::int64_t first_bytes = sum.view().bytes(), second_bytes = b.view().bytes();
  for (int round = 0; round < 2; ++round) {
    auto* memory = static_cast<std::byte*>(b_.allocate_host(512 + second_bytes));
    std::memset(memory, 0, static_cast<std::size_t>(512 + second_bytes));
    b_.add(a.view(), a.view(), sum.view());
    const std::vector<Download> downloads = {{sum.view(), memory}, {none.view(), memory}, {b.view(), memory + 512}};
    ASSERT_LE(first_bytes, 512);
    b_.start_downloads(downloads);
    b_.put_behind_downloads();
    b_.fill(sum.view(), 3);
    b_.fill(b.view(), 4);
    b_.wait_for_downloads();
    Field first({5, 7}, type()), other({3}, type());
    b_.upload(memory, first.view());
    b_.upload(memory + 512, other.view());
    finished([&] { b_.release_host(memory); });
    EXPECT_EQ(first.get(), wanted);
    EXPECT_EQ(other.get(), second);
    EXPECT_EQ(b.get(), Values(3, 4.0));
    b.set(second);
  }
}

TEST_P(BesideVerbs, HostMemoryIsReleasedWhenNothingUsesItAnyMore) {
  Field a = values({16, 16}, 1);
  void* memory = b_.allocate_host(a.view().bytes());
  b_.start_downloads(std::vector<Download>{{a.view(), memory}});
  b_.release_host(memory);
  b_.release_host(nullptr);
}

TEST_P(BesideVerbs, TheClockChargesAStepsPhasesAndNothingElse) {
  auto& clock = b_.phase_clock();
  Field a = values({64, 64}, 1);
  const auto work = [&] { b_.add(a.view(), a.view(), a.view()); };
  const auto began = std::chrono::steady_clock::now();
  {
    const PhaseScope scope(clock, Phase::exchange);
    EXPECT_EQ(clock.phase(), Phase::outside) << "between steps a scope is none";
    work();
  }
  finished(work);
  EXPECT_EQ(clock.take().total(), 0);

  clock.enter(Phase::forward);
  work();
  {
    const PhaseScope scope(clock, Phase::exchange);
    const PhaseScope same(clock, Phase::exchange);
    work();
  }
  EXPECT_EQ(clock.phase(), Phase::forward);
  work();
  clock.enter(Phase::optimizer);
  work();
  clock.enter(Phase::outside);
  finished(work);
  const auto seconds = clock.take();
  const double all = std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  for (const Phase phase : {Phase::forward, Phase::exchange, Phase::optimizer}) EXPECT_GT(seconds[phase], 0);
  EXPECT_NEAR(seconds.total(), seconds[Phase::forward] + seconds[Phase::exchange] + seconds[Phase::optimizer], 1e-12);
  EXPECT_LE(seconds.total(), all);
  EXPECT_EQ(clock.take().total(), 0) << "taken once";
}

}  // namespace
}  // namespace smlp::test
