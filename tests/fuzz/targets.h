// What is fuzzed: everything that reads what somebody else wrote, or what a crash may have left. A target takes any
// bytes; it returns, or throws smlp::Error where the reader refuses them. Anything else is a bug: another exception, a
// signal, a sanitizer's report, or a promise of the reader that does not hold.
// fuzz_replay_test runs all targets on their seeds and on seeded damage to them; scripts/fuzz.sh under libFuzzer.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace smlp::fuzz {

struct Target {
  const char* name;
  void (*run)(std::string_view bytes);
  std::vector<std::string> seeds;  // what a good input looks like
};

std::vector<Target> text_targets();        // tokenizers, texts, token files
std::vector<Target> job_targets();         // job files and SLURM's words
std::vector<Target> checkpoint_targets();  // manifests, shards
std::vector<Target> run_targets();         // the files of a run directory
const std::vector<Target>& all_targets();

}  // namespace smlp::fuzz
