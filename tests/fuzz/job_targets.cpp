#include "core/job_file.h"
#include "core/slurm_values.h"
#include "data/hash_table_file.h"
#include "slurm/host_list.h"
#include "slurm/scontrol_text.h"
#include "tests/fuzz/inputs.h"
#include "tests/fuzz/targets.h"

namespace smlp::fuzz {

namespace {

// A job file, and words of --set.
void job_file(std::string_view bytes) {
  const auto parts = parts_of(bytes);
  LoadedJob job = parse_job(parts[0], "job.toml", {parts.begin() + 1, parts.end()});
  slurm_problems(job.config.slurm);
  slurm_seconds(job.config.slurm.time_limit);
  slurm_bytes(job.config.slurm.memory);
  check_and_resolve(job, Computed::elsewhere);
  LoadedJob again = parse_job(to_toml(job.config), "again.toml");
  check_and_resolve(again, Computed::elsewhere);
  must(to_toml(again.config) == to_toml(job.config), "a job that is written and read again is the same");
  const LoadedJob identity = parse_job(identity_toml(job.config), "identity.toml");
  must(fingerprint(identity.config) == fingerprint(job.config), "identity_toml() has all that the fingerprint counts");
}

void host_list(std::string_view bytes) {
  const auto names = expand_hosts(bytes);
  if (names) must(expand_hosts(compress_hosts(*names)) == names, "a compressed list names the same hosts");
}

void scontrol(std::string_view bytes) {
  const std::string text(bytes);
  for (const bool own : {false, true}) read_job(text, "12", own);
  read_nodes(text);
}

void hash_table(std::string_view bytes) {
  constexpr std::int32_t experts = 4;
  for (const std::int32_t expert : read_hash_table(put(folder() / "table", bytes), 8, experts))
    must(expert >= 0 && expert < experts, "a table names experts that there are");
}

}  // namespace

std::vector<Target> job_targets() {
  return {{"job_file", job_file,
           {joined({"name = \"a\"\n[model]\nwidth = 64\n[data]\ntokenizer = \"bytes\"\ntrain = [\"x\"]\nvalid = [\"y\"]\n"
                    "[optimizer]\nbetas = [0.9, 0.98]\n[slurm]\ntime_limit = \"2-12:30\"\nextra = [\"--mem=1G\"]\n",
                    "train.steps=3", "model.kind=gshard"})}},
          {"host_list", host_list, {"n[1-3,07-09],gpu5", "a[1-2]b[3-4]c"}},
          {"scontrol", scontrol,
           {"JobId=12 JobName=x\n   JobState=RUNNING Reason=None Dependency=(null)\n   Requeue=1 Restarts=0\n",
            "NodeName=n1 Arch=x86_64\n   State=DOWN*+DRAIN ThreadsPerCore=1\n   Reason=Not responding [root@2026]\n\n"
            "NodeName=n2\n   State=IDLE\n"}},
          {"hash_table", hash_table, {"0 1 2 3\n3 2 1 0"}}};
}

}  // namespace smlp::fuzz
