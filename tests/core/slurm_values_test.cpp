#include "core/slurm_values.h"

#include <gmock/gmock.h>

#include <cmath>

#include "core/error.h"
#include "core/job_file.h"

namespace smlp {
namespace {

using testing::AllOf;
using testing::HasSubstr;

std::string refusal_of_slurm(const std::string& line) {
  auto job = parse_job("name = \"a\"\n[model]\nvocabulary = 64\n[train]\nmicro_batch = 4\n[slurm]\n" + line + "\n", "job.toml");
  try {
    check_and_resolve(job);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::configuration);
    return error.what();
  }
  return "";
}

TEST(SlurmValues, WhatSbatchTakesIsTaken) {
  for (const char* line :
       {"partition = \"batch,urgent\"", "account = \"a.b@c\"", "constraint = \"[rack1|rack2]*2&v100\"",
        "dependency = \"afterok:17:18,afterany:3?singleton\"", "memory = \"64G\"", "memory = \"4000\"", "array = \"0-9%1\"",
        "array = \"1,5,7-9:2\"", "time_limit = \"24:00:00\"", "time_limit = \"UNLIMITED\"", "time_limit = \"2-12\"",
        "setup = [\"module load cuda/12.4\", \"export A='b c'\\t# why\"]", "extra = [\"--comment=\\\"a b\\\"\", \"-x n1\"]",
        "exclusive = true", "signal_seconds = 300", "max_requeues = 0"}) {
    EXPECT_EQ(refusal_of_slurm(line), "") << line;
  }
}

TEST(SlurmValues, WhatSlurmWouldMisreadIsRefusedWithKeyAndLine) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"partition = \"a\\n#SBATCH --wrap=x\"", "slurm.partition = \"a\\u000A#SBATCH --wrap=x\" holds a line break"},
      {"partition = \"a b\"", "holds a blank"},
      {"account = \"a\\u0000\"", "holds the byte 0x00"},
      {"account = \"ä\"", "holds the byte 0xC3"},
      {"qos = \"a#b\"", "holds #"},
      {"constraint = \"$(id)\"", "holds $"},
      {"constraint = \"a\\\"b\"", "holds \""},
      {"dependency = \"afterok:1;id\"", "holds ;"},
      {"dependency = \"`id`\"", "holds `"},
      {"memory = \"64 G\"", "write it as \"64G\""},
      {"memory = \"lots\"", "is no size of memory"},
      {"array = \"0-3;id\"", "is no list of numbers"},
      {"time_limit = \"soon\"", "is no time that sbatch takes"},
      {"time_limit = \"1:2:3:4\"", "is no time"},
      {"time_limit = \"-5\"", "is no time"},
      {"time_limit = \"1:\"", "is no time"},
      {"setup = [\"true\\nfalse\"]", "slurm.setup = [\"true\\u000Afalse\"] holds a line break inside a line"},
      {"extra = [\"--hold\\ntouch x\"]", "holds a line break inside an option"},
      {"extra = [\"touch x\"]", "holds 'touch x', which is no option"},
      {"extra = [\"--\"]", "which is no option"},
      // Once ten jobs of one run began at the same time, and the warning came when it liked.
      {"extra = [\"--array=0-9\"]", "use slurm.array"},
      {"extra = [\"-a0-9\"]", "use slurm.array"},
      {"extra = [\"--signal B:USR2@10\"]", "use slurm.signal_seconds"},
      {"extra = [\"--time=1\"]", "use slurm.time_limit"},
      {"extra = [\"-N 3\"]", "use slurm.nodes"},
      {"extra = [\"--wrap=touch x\"]", "use slurm.setup"},
      {"signal_seconds = 70000", "out of range"}};
  for (const auto& [line, words] : cases) {
    std::string said;
    try {
      said = refusal_of_slurm(line);
    } catch (const Error& error) {
      said = error.what();
    }
    EXPECT_THAT(said, AllOf(HasSubstr("job.toml:7: slurm."), HasSubstr(words))) << line;
  }
  EXPECT_THAT(refusal_of_slurm("array = \"" + std::string(1'000'000, '1') + "\""), HasSubstr("is no list of numbers"));
  EXPECT_THAT(refusal_of_slurm("extra = [\"" + std::string(1'000'000, '-') + "\"]"), HasSubstr("is no option"));
}

// Only the first word of an entry was looked at, and only whole names: half the nodes were asked for, and trained on.
TEST(SlurmValues, NoWordOfAnExtraOptionTakesTheKeysFromUs) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"--exclusive --nodes=1 --ntasks=1", "use slurm.nodes"},
      {"--exclusive\t--tim=5", "use slurm.time_limit"},
      {"--node=4", "use slurm.nodes"},
      {"--ntasks-p 3", "use slurm.tasks_per_node"},
      {"--sig=B:USR2@10", "use slurm.signal_seconds"},
      {"--hold -t5", "use slurm.time_limit"},
      {"-HOn2", "use slurm.nodes"},
      {"--hold \\\"--nodes=1\\\"", "use slurm.nodes"},
      {"--hold -'-'nodes=1", "use slurm.nodes"},
      {"--hold \\\\--nodes=1", "use slurm.nodes"},
      {"--hold --wra=true", "use slurm.setup"}};
  for (const auto& [option, words] : cases) {
    EXPECT_THAT(refusal_of_slurm("extra = [\"" + option + "\"]"), AllOf(HasSubstr("job.toml:7: slurm.extra"), HasSubstr(words)))
        << option;
  }
  for (const char* option : {"--comment='a -N 3'", "--time-min=5", "--nodelist=n1 --nodefile=x", "--ntasks-per-core=1 -x n1",
                             "--wait-all-nodes=1", "--hint=nomultithread", "--hold # --nodes=1", "-J name -kw n2"}) {
    EXPECT_EQ(refusal_of_slurm("extra = [\"" + std::string(option) + "\"]"), "") << option;
  }
}

// `submit` hung until the job's end, or took what sbatch printed for a job's number.
TEST(SlurmValues, OptionsWithWhichSbatchDoesSomethingElseAreRefused) {
  for (const char* option : {"--wait", "-W", "--hold --wai", "-HW"}) {
    EXPECT_THAT(refusal_of_slurm("extra = [\"" + std::string(option) + "\"]"), HasSubstr("waits for the end of the job"))
        << option;
  }
  for (const char* option : {"--test-only", "--help", "-h", "--usage", "-u", "--version", "-V", "--hold --test"}) {
    EXPECT_THAT(refusal_of_slurm("extra = [\"" + std::string(option) + "\"]"), HasSubstr("sbatch submits no job")) << option;
  }
}

TEST(SlurmValues, MemoryIsReadAsSbatchReadsIt) {
  EXPECT_EQ(slurm_bytes("512"), 512.0 * 1024 * 1024);
  EXPECT_EQ(slurm_bytes("3K"), 3072);
  EXPECT_EQ(slurm_bytes("2g"), 2.0 * 1024 * 1024 * 1024);
  EXPECT_EQ(slurm_bytes("1T"), std::ldexp(1.0, 40));
  for (const char* all : {"", "0", "0G", "much", "5x", "5GB"}) EXPECT_EQ(slurm_bytes(all), std::nullopt) << all;
}

TEST(SlurmValues, TimesAreReadAsSbatchReadsThem) {
  EXPECT_EQ(slurm_seconds("90"), 90 * 60);
  EXPECT_EQ(slurm_seconds("90:30"), 90 * 60 + 30);
  EXPECT_EQ(slurm_seconds("1:02:03"), 3723);
  EXPECT_EQ(slurm_seconds("2-12"), 60 * 3600);
  EXPECT_EQ(slurm_seconds("1-0:30"), 86400 + 1800);
  EXPECT_EQ(slurm_seconds("1-00:00:05"), 86405);
  for (const char* none : {"", "0", "UNLIMITED", "INFINITE", "soon"}) EXPECT_EQ(slurm_seconds(none), std::nullopt) << none;
}

}  // namespace
}  // namespace smlp
