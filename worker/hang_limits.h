// How long each part of the loop may go without progress before its rank counts as hung. Learned from the run: the
// median of the last durations times a factor, never below a floor nor above a ceiling; a generous default until
// enough is known. What was learned is kept in RUN/limits.json, so that a restarted run has limits at once.
// A plain value; the Heartbeat owns and guards one.
#pragma once

#include <array>
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

namespace smlp {

enum class Section : std::uint8_t { start, data, exchange, step, checkpoint, evaluation, finish };
inline constexpr std::size_t section_count = 7;
const char* name_of(Section section);

struct HangSettings {
  double floor_seconds = 15, factor = 10, ceiling_seconds = 3600;
};

class HangLimits {
 public:
  explicit HangLimits(const HangSettings& settings) : settings_(settings) {}

  // Starts and saves touch disks that many share: their floor is this many times the floor.
  static constexpr double disk_floors = 4;

  void took(Section section, double seconds);
  // A rank in a collective waits for peers that may use up theirs: the limit of an exchange is never less than that
  // of a step or its data. The first step of a process may set things up: it has a start's limit at least.
  double seconds(Section section) const;

  void recall(const std::string& text);  // what can't be read is not known
  void on_ranks(int ranks);              // fewer than those that were recalled from take longer for the same work
  std::string text() const;              // JSON
  bool knows_steps() const;           // from this process

 private:
  static constexpr std::size_t window = 32, enough = 3, starts_kept = 8;
  std::optional<double> median(Section section) const;
  double own_seconds(Section section) const;
  std::vector<double>& of(Section section) { return recent_[static_cast<std::size_t>(section)]; }
  const std::vector<double>& of(Section section) const { return recent_[static_cast<std::size_t>(section)]; }

  HangSettings settings_;
  std::array<std::vector<double>, section_count> recent_;           // of this process; starts: of earlier ones too
  std::array<std::optional<double>, section_count> recalled_;       // medians of earlier attempts
  std::int64_t ranks_ = 1, recalled_ranks_ = 1;
};

}  // namespace smlp
