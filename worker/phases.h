// Where the seconds of a step went. The names are those of smlp_phase_seconds_total.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>

namespace smlp {

enum class Phase : std::size_t { forward, backward, exchange, reduce, optimizer, data, checkpoint, other };
inline constexpr std::size_t phase_count = 8;
inline constexpr std::array<const char*, phase_count> phase_names = {
    "forward", "backward", "exchange", "reduce", "optimizer", "data", "checkpoint", "other"};

class PhaseSeconds {
 public:
  double& operator[](Phase phase) { return seconds_[static_cast<std::size_t>(phase)]; }
  double operator[](Phase phase) const { return seconds_[static_cast<std::size_t>(phase)]; }
  double total() const {
    double sum = 0;
    for (const double s : seconds_) sum += s;
    return sum;
  }
  PhaseSeconds& operator+=(const PhaseSeconds& other) {
    for (std::size_t i = 0; i < phase_count; ++i) seconds_[i] += other.seconds_[i];
    return *this;
  }

 private:
  std::array<double, phase_count> seconds_{};
};

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
