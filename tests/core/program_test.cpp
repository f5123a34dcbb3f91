#include "core/program.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <unistd.h>

#include "tests/descriptor_limit.h"

namespace smlp {
namespace {

using testing::HasSubstr;

// It threw, and ended the launcher where it was called in a thread.
TEST(RunProgram, WithNoDescriptorLeftFailsInWords) {
  const int first = open("/dev/null", O_RDONLY | O_CLOEXEC);
  close(first);
  for (const int left : {0, 2}) {
    ProgramAnswer answer;
    {
      const test::DescriptorLimit few(static_cast<rlim_t>(first + left));
      EXPECT_NO_THROW(answer = run_program({"true"}, own_environment(), 20)) << left;
    }
    EXPECT_EQ(answer.code, -1) << left;
    EXPECT_THAT(answer.failure, HasSubstr("true could not be started: Too many open files")) << left;
  }
  EXPECT_EQ(run_program({"true"}, own_environment(), 20).code, 0);
}

}  // namespace
}  // namespace smlp
