// The pulse of one rank: where its loop is, written in place to a small file that the launcher watches (no new
// disk block is needed, so a full disk does not stop it), and a watchdog
// that ends the process when the loop makes no progress within the limit of its section. Limits are learned
// from the run: median of past steps times a factor, never below the floor.
//
// beat() and enter() are called by the loop thread; the pulse thread writes the file twice a second and checks the limit.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace smlp {

enum class Section : int { start, data, step, checkpoint, evaluation, finish };
const char* name_of(Section section);

class Heartbeat {
 public:
  // `report` is called on the pulse thread with a sentence before the process exits with 134.
  Heartbeat(const std::filesystem::path& file, double floor_seconds, std::function<void(const std::string&)> report);
  ~Heartbeat();

  void enter(Section section, std::int64_t step);
  void beat();                               // progress within the section
  void step_took(double seconds);            // learns
  double limit_seconds(Section section) const;
  struct Place {
    Section section;
    std::int64_t step, sequence;
    double seconds;  // since the last progress
  };
  Place place() const;  // from any thread

  static constexpr int hung_status = 134;

 private:
  void pulse(std::stop_token stop);
  void write();

  int file_ = -1;
  double floor_seconds_;
  std::function<void(const std::string&)> report_;
  std::string host_;

  mutable std::mutex mutex_;  // guards what follows
  Section section_ = Section::start;
  std::int64_t step_ = 0, sequence_ = 0;
  double progressed_ = 0;
  std::vector<double> recent_;  // seconds of the last steps, a ring
  std::size_t next_ = 0;

  std::jthread thread_;
};

}  // namespace smlp
