// The script that sbatch is given: what SLURM must know as #SBATCH lines, the job's own set-up lines, and as its last
// line `exec smlp run`, so that signals for the batch script reach smlp itself (launcher/batch_guard.h). Text alone: nothing
// is asked or written here.
//
// No name, path or value is ever read as anything else: what a shell reads is in single quotes, what sbatch reads in
// its own double quotes, and what neither can carry is refused. Set-up lines are the job's own shell, as they stand.
//
// Signals: the script starts itself again with USR1, TERM and INT blocked, before any set-up line. One that arrives
// from then on is neither deadly nor lost but waits until smlp takes it, which saves and leaves. Where env(1) can't
// block (coreutils before 8.31) they are ignored until smlp listens.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "core/job_config.h"

namespace smlp {

struct BatchScript {
  std::filesystem::path program;           // smlp
  std::filesystem::path job_file;          // a snapshot of the job: later changes of the user's file don't reach it
  std::filesystem::path run_directory;
  std::filesystem::path working_directory; // where relative paths of the job begin
  std::vector<std::string> run_options;    // more words for `smlp run`
  std::int64_t warning_seconds = 120;
};

// An array that may run side by side: each job has a folder task-N of its own below the run directory, and seed + N.
// Otherwise (no array, or %1) the jobs go on with one run, one after another.
bool has_runs_of_their_own(const JobConfig& job);

// All paths are absolute, and slurm.nodes is known. Throws Error(configuration) for a path that a script can't name.
std::string text_of(const BatchScript& script, const JobConfig& job);

// One word of a shell: 'it'\''s'.
std::string shell_quoted(std::string_view word);
// A value of a #SBATCH line, as sbatch's own reader takes it.
std::string sbatch_quoted(std::string_view value);

}  // namespace smlp
