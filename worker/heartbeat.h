// The pulse of one rank: where its loop is, written in place to a small file that the launcher watches (no new disk
// block is needed, so a full disk does not stop it), and a watchdog that ends the process when the loop makes no
// progress within the limit of its section (worker/hang_limits.h). Progress is enter(), beat(), and every collective
// that begins. Saves are written beside the loop, which may go on, or ask others how far they are, while the disk answers
// this rank no more: that counts by itself, within the limit of a save. What other ranks have to write does not.
// The file holds one line of words, read by launcher/heartbeat_watch.cpp:
//   step section sequence progressed pid host limit attempt pulse collectives inside call block [disk SECONDS LIMIT] [gives_up]
// `disk`: how long this rank's own part of a save has waited for an answer, and how long it may. The last word stands in the
// last line of a rank whose watchdog ends it.
//
// enter(), beat(), step_done() and saved() are called by the loop thread; the pulse thread writes the file twice a
// second and checks the limit.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "core/attempt_end.h"
#include "core/run_directory.h"
#include "worker/checkpointing.h"
#include "worker/hang_limits.h"

namespace smlp {

// What can be seen of the loop from outside, at any time.
struct LoopPlace {
  std::int64_t collectives = 0;  // begun by this rank, in all groups: ranks in step have the same number
  bool inside = false;           // one is under way
  std::string call = "-";        // "world:all_reduce:123": the last one of the group that is inside; without spaces
  std::string block = "-";       // "3:forward"
  std::optional<OwnWriting> writing{};  // beside the loop, waiting for the disk
};

class Heartbeat {
 public:
  using Report = std::function<void(const std::string&)>;
  // `report` is called on the pulse thread with a sentence before the process exits with hung_status; it may take 5 s.
  Heartbeat(const RunDirectory& run, int attempt, int rank, const HangSettings& settings, Report report);
  ~Heartbeat();

  void enter(Section section, std::int64_t step);
  void beat();  // progress within the section
  // Learns. `collective`: the longest of the step. `restored`: this start read a checkpoint, as later ones will.
  void step_done(double collective, bool restored);
  void saved(double seconds);

  // How the place is asked for while what it looks at lives; empty: no longer.
  void look_at(std::function<LoopPlace()> loop);
  void on_ranks(int ranks);

  double limit_seconds(Section section) const;
  struct Place {
    Section section;
    std::int64_t step, sequence;
    double seconds;  // since the last progress
  };
  Place place() const;  // from any thread

 private:
  void pulse(std::stop_token stop);
  void look();
  std::string line(bool gives_up);
  std::string complaint() const;  // why this rank hangs; "": it does not
  void mark();  // the mutex is held
  Section shown() const;
  void keep_limits(std::unique_lock<std::mutex>& lock, bool last);
  [[noreturn]] void give_up(const std::string& sentence);

  int file_ = -1;
  bool on_nfs_ = false;
  RunDirectory run_;
  int attempt_, rank_;
  Report report_;
  std::string host_;

  mutable std::mutex mutex_;  // guards what follows; not held over input or output
  HangLimits limits_;
  std::function<LoopPlace()> loop_;
  LoopPlace seen_;
  Section section_ = Section::start;
  std::int64_t step_ = 0, sequence_ = 0, pulses_ = 0;
  double marked_ = 0, progressed_ = 0;         // by the loop; by the loop or a collective
  std::array<double, section_count> longest_;  // without a mark, since it was last learned from
  double kept_ = -1e9;                         // limits were written at
  bool start_known_ = false;

  std::jthread thread_;
};

}  // namespace smlp
