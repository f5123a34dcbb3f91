// What `smlp run` prints: one refreshing line on a terminal, plain lines now and then elsewhere, and notes between. Who prints
// also watches the ranks, and waits for nobody that reads: while a terminal is stopped (Ctrl-S) or a pipe is full, progress is
// left out and notes are kept for later.
#pragma once

#include <cstdint>
#include <cstdio>
#include <string>

#include "core/job_config.h"
#include "launcher/metrics_tail.h"

namespace smlp {

// "step 120/400  loss 3.214  12.3k tokens/s  41 % of peak  balance 1.02  checkpoint 100 (0:03 ago)  0:42 left"
std::string progress_text(const StepFacts& facts, const JobConfig& job, double unix_now);

class ProgressLine {
 public:
  ProgressLine(const JobConfig& job, std::FILE* out);
  ~ProgressLine();

  void show(const StepFacts& facts, double now);  // monotonic
  void note(const std::string& sentence);         // a line of its own
  void finish(const StepFacts& facts);            // the last one, in full

 private:
  void write(const std::string& text);
  void write_what_is_taken(int milliseconds);
  void clear();

  const JobConfig& job_;
  std::FILE* out_;
  bool terminal_;
  bool line_open_ = false;
  std::string unread_;  // what was not taken yet
  double shown_at_ = -1e9;
  std::int64_t shown_step_ = -1;
};

}  // namespace smlp
