// Seconds by the host's clock.
#pragma once

#include <chrono>

namespace smlp {

class Stopwatch {
 public:
  double seconds() const { return std::chrono::duration<double>(clock::now() - start_).count(); }
  double lap() {  // since the last lap
    const auto now = clock::now();
    const double s = std::chrono::duration<double>(now - lap_).count();
    lap_ = now;
    return s;
  }

 private:
  using clock = std::chrono::steady_clock;
  clock::time_point start_ = clock::now(), lap_ = start_;
};

}  // namespace smlp
