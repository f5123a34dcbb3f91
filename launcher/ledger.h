// RUN/ledger.jsonl, the launcher's part of the book of a run's seconds (core/goodput.h): one line when a launcher
// begins and one for each attempt that ended, each with the totals so far. Steps are rank 0's part, in metrics.jsonl;
// an attempt whose launcher died is booked by the next one, from what its ranks left.
#pragma once

#include "core/goodput.h"
#include "core/run_directory.h"

namespace smlp {

class Ledger {
 public:
  explicit Ledger(RunDirectory run) : run_(std::move(run)) {}

  // Seconds since 1970 throughout. A disk that takes no line ends no run: the next line holds it all.
  void launcher_began(double now);
  // `stepped`: it did a step at least. `in_order`: it left by itself, so that its end was its last save.
  void attempt_ended(double now, int attempt, bool stepped, bool in_order);

 private:
  void write(const Goodput& book, const char* what, int attempt);

  RunDirectory run_;
};

}  // namespace smlp
