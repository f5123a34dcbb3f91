#include <fmt/format.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>

#include "core/error.h"
#include "tests/comm/ranks.h"

namespace smlp::test {

namespace {

constexpr unsigned seconds_a_test = 60;
std::unique_ptr<Communicator> the_world;
char running[200] = "start-up";

extern "C" void hung(int) {
  const char text[] = "a test hung and its watchdog ends the job: ";
  (void)!write(STDERR_FILENO, text, sizeof text - 1);
  (void)!write(STDERR_FILENO, running, std::strlen(running));
  (void)!write(STDERR_FILENO, "\n", 1);
  _exit(99);
}

class Watchdog : public testing::EmptyTestEventListener {
  void OnTestStart(const testing::TestInfo& test) override {
    const auto name = fmt::format("{}.{}", test.test_suite_name(), test.name());
    std::strncpy(running, name.c_str(), sizeof running - 1);
    alarm(seconds_a_test);
  }
  void OnTestEnd(const testing::TestInfo&) override { alarm(0); }
};

// Registered last, so that its end-of-test call comes first (listeners end in reverse order).
class Agreement : public testing::EmptyTestEventListener {
  void OnTestEnd(const testing::TestInfo& test) override {
    double failed = test.result()->Failed() ? 1 : 0;
    the_world->all_reduce_host({&failed, 1}, Reduce::max);
    if (failed != 0 && !test.result()->Failed()) ADD_FAILURE() << "failed on another rank";
  }
};

// What ranks other than 0 say: failures alone, with their number.
class FailuresOnly : public testing::EmptyTestEventListener {
  void OnTestPartResult(const testing::TestPartResult& part) override {
    if (part.failed()) {
      fmt::print(stderr, "rank {}: {}:{}: {}\n", the_world->rank(), part.file_name() ? part.file_name() : "",
                 part.line_number(), part.message());
    }
  }
};

int run(int argc, char** argv) {
  signal(SIGALRM, hung);
  alarm(seconds_a_test);
  testing::InitGoogleTest(&argc, argv);
  the_world = make_mpi_world();
  auto& listeners = testing::UnitTest::GetInstance()->listeners();
  if (the_world->rank() != 0) {
    delete listeners.Release(listeners.default_result_printer());
    listeners.Append(new FailuresOnly);
  }
  listeners.Append(new Watchdog);
  listeners.Append(new Agreement);
  const int failed = RUN_ALL_TESTS();
  alarm(seconds_a_test);
  the_world.reset();
  return failed;
}

}  // namespace

Communicator& world() { return *the_world; }

}  // namespace smlp::test

int main(int argc, char** argv) {
  try {
    return smlp::test::run(argc, argv);
  } catch (const smlp::Error& error) {
    fmt::print(stderr, "{}\n", error.what());
    return static_cast<int>(error.code());
  }
}
