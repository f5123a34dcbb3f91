// Asking a live run for something and waiting for the answer: what `save`, `stop` and `dump` share. The request is a
// file (core/control_folder.h); Ctrl-C and the end of patience only end the waiting.
#pragma once

#include <CLI/CLI.hpp>
#include <string>

#include "core/control_folder.h"
#include "core/run_directory.h"

namespace smlp {

struct AskOptions {
  std::string run;
  double timeout_seconds = 60;
  const char* when_time_is_up = "the request stays";  // for the help
  bool json = false;
};
void add_ask_options(CLI::App& command, AskOptions& options);

// Throws Error(configuration) for a folder that is no run, Error(call_again) for a run that nobody would answer for.
RunDirectory live_run(const std::string& folder);
// What was answered: done or accepted. Throws Error(call_again) when the run ended, or the time was up, before it was
// done, Error(io_failed) when it could not be done. A run that is gone keeps no request.
Answer ask_and_wait(const RunDirectory& run, const Request& request, double timeout_seconds);
void print_answer(const Answer& answer, bool json);

bool interrupted() noexcept;  // Ctrl-C, from the first call on

}  // namespace smlp
