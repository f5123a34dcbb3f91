// What workers and launcher must know alike of how an attempt ends: docs/running.md has it for users.
#pragma once

#include <cstdint>
#include <initializer_list>

#include "core/error.h"

namespace smlp {

constexpr int hung_status = 134;  // a rank's exit code when its own watch finds that it hangs
constexpr std::int64_t nonfinite_in_row = 5;  // steps whose gradient or loss is not finite, before the attempt ends

// Trying again can't help.
constexpr bool ends_the_run(std::int64_t exit_code) noexcept {
  for (const auto code : {ExitCode::usage, ExitCode::bad_data, ExitCode::unavailable, ExitCode::configuration}) {
    if (exit_code == static_cast<int>(code)) return true;
  }
  return false;
}

// It ended unasked, and another may end so again.
constexpr bool is_failure(std::int64_t exit_code) noexcept {
  const auto is = [=](ExitCode code) { return exit_code == static_cast<int>(code); };
  return !is(ExitCode::done) && !is(ExitCode::call_again) && !ends_the_run(exit_code);
}

}  // namespace smlp
