// Where the seconds of a step go, phase after phase without gaps, by the clock of whoever computes: the host's where
// calls are finished when they return, a device's where they are only enqueued (tensor/cuda/device_clock.h). Owned by
// the backend, used by its thread. Between steps the phase is `outside`: nothing is charged, and scopes change nothing.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>

namespace smlp {

// The names are those of smlp_phase_seconds_total; `outside` has none.
enum class Phase : std::size_t { forward, backward, exchange, reduce, optimizer, data, checkpoint, other, outside };
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
  void add(Phase phase, double seconds) {
    if (phase != Phase::outside) (*this)[phase] += seconds;
  }

 private:
  std::array<double, phase_count> seconds_{};
};

class PhaseClock {
 public:
  virtual ~PhaseClock() = default;
  Phase phase() const noexcept { return phase_; }
  // What comes from now on is of this phase.
  void enter(Phase next) {
    if (next != phase_) changed(phase_, next);
    phase_ = next;
  }
  // What was charged since the last call. Of a device: up to where the host has waited for it, or further; what comes
  // after that is told by the next call. Does not wait.
  virtual PhaseSeconds take() = 0;

 protected:
  virtual void changed(Phase from, Phase to) = 0;

 private:
  Phase phase_ = Phase::outside;
};

// A phase within another one of a step.
class PhaseScope {
 public:
  PhaseScope(PhaseClock& clock, Phase phase) : clock_(clock), around_(clock.phase()) {
    if (around_ != Phase::outside) clock_.enter(phase);
  }
  ~PhaseScope() { clock_.enter(around_); }
  PhaseScope(const PhaseScope&) = delete;
  PhaseScope& operator=(const PhaseScope&) = delete;

 private:
  PhaseClock& clock_;
  Phase around_;
};

class HostClock final : public PhaseClock {
 public:
  PhaseSeconds take() override;

 private:
  using clock = std::chrono::steady_clock;
  void changed(Phase from, Phase to) override;

  PhaseSeconds seconds_;
  clock::time_point since_{};  // the current phase is charged from here
};

}  // namespace smlp
