// Why an attempt ended, from what is left of it: mpirun's status and words, and the sentence a rank wrote.
#pragma once

#include <string>

#include "core/run_directory.h"

namespace smlp {

struct Outcome {
  int code = 0;        // an exit code of smlp, another program's, or 128 + signal
  std::string cause;   // one word: done stopped usage bad_data unavailable fault io diverged configuration hang signal
  std::string reason;  // a sentence without a full stop: "rank 1 was killed by signal 9 (SIGKILL)"
  bool superseded = false;  // the ranks left because another launcher's attempt has taken over the run

  bool complete() const { return code == 0; }
  bool is_final() const;  // trying again can't help
};

// `status`: of `starter` (mpirun or srun), as waitpid gave it.
Outcome explain_end(const RunDirectory& run, int attempt, int ranks, const std::string& starter, int status);
std::string cause_of(int code);
// The sentence of the rank that failed first, "" when none left one.
std::string first_error(const RunDirectory& run, int attempt, int ranks);

}  // namespace smlp
