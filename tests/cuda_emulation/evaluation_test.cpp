// What is done with a model that is trained: its loss on a file, whether tokens go where training sends them, and text
// from it. On the GPU what comes out on the CPU.
#include <gtest/gtest.h>

#include "data/token_file_writer.h"
#include "eval/generate.h"
#include "tests/cuda_emulation/small_model.h"
#include "tests/data/scratch.h"

namespace smlp::test {
namespace {

struct Told {
  Evaluation evaluation;
  std::vector<std::int32_t> text;
};

Told tell(const JobConfig& job, Ranks ranks, std::unique_ptr<Backend> backend, const TokenFile& file) {
  SmallRun run(job, ranks, std::move(backend));
  run.step();
  auto& engine = run.engine();
  Told told{.evaluation = engine.evaluate(file, 0, [] {}, job.model.sparse_blocks > 0), .text = {}};
  const GenerationSettings settings{.tokens = 12, .temperature = 0, .context = job.model.context,
                                    .vocabulary = job.model.vocabulary, .known_tokens = job.model.vocabulary - 3};
  told.text = generate(engine.model(), engine.backend(), engine.arena(), {1, 2, 3}, value_type(job), settings,
                       [](std::int32_t) {});
  return told;
}

class Evaluated : public testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Of, Evaluated, testing::ValuesIn(every_kind), [](const auto& info) { return std::string(info.param); });

TEST_P(Evaluated, AsOnTheCpu) {
  const Scratch scratch;
  const std::string prefix = scratch / "tokens";
  {
    TokenFileWriter writer(prefix, 64);
    std::vector<std::int32_t> tokens(101);  // whole windows for both ranks, and a part of one
    for (std::size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<std::int32_t>(i * i % 61);
    writer.append(tokens);
    writer.finish();
  }
  const TokenFile file(prefix);
  const auto job = small_job(GetParam(), "f32");
  const Told wanted = tell(job, Ranks::over_mpi, make_cpu_backend(), file);
  const Told got = tell(job, Ranks::staged, gpu(), file);
  EXPECT_EQ(got.evaluation.tokens, wanted.evaluation.tokens);
  EXPECT_NEAR(got.evaluation.loss(), wanted.evaluation.loss(), 2e-4 * wanted.evaluation.loss());
  ASSERT_EQ(got.evaluation.agreement.size(), wanted.evaluation.agreement.size());
  for (std::size_t i = 0; i < wanted.evaluation.agreement.size(); ++i) {
    EXPECT_EQ(got.evaluation.agreement[i].compared, wanted.evaluation.agreement[i].compared);
    EXPECT_NEAR(got.evaluation.agreement[i].alike, wanted.evaluation.agreement[i].alike, 1) << "but for a tie";
  }
  EXPECT_EQ(got.text, wanted.text);
}

}  // namespace
}  // namespace smlp::test
