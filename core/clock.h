// The clocks of a run: one that only goes forward, shared by all processes of a host, and the calendar's.
#pragma once

#include <string>

namespace smlp {

double monotonic_seconds();  // CLOCK_MONOTONIC: comparable between processes of one host, not between hosts
double unix_seconds();       // since 1970, UTC
std::string utc_time();      // "2026-01-31T17:05:09.123Z", for logs and events

void sleep_seconds(double seconds);

// "0:42", "1:05:09", "3 d 4 h": how long something takes, for people.
std::string duration_text(double seconds);

}  // namespace smlp
