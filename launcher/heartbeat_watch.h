// Watches the small files in which the ranks say where they are (worker/heartbeat.h writes them):
//   step section sequence progressed pid host limit attempt pulse collectives inside call block [disk SECONDS LIMIT] [gives_up]
// and tells when one makes no progress within the limit it allows itself, stopped processes included. Time is
// counted by this watch, so hosts need no common clock, and a pause of the launcher counts against nobody. What a
// rank of another attempt writes is passed over. Once a rank gives up, nothing more is read: the starter then wakes
// a stopped rank to end it, and what that one still writes would hide who kept the others waiting.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/run_directory.h"

namespace smlp {

struct Beat {
  std::int64_t step = 0;
  std::string section;
  std::int64_t sequence = 0;  // counts progress; the same on all ranks at the same place of the program
  pid_t pid = 0;
  std::string host;
  double limit_seconds = 0;
  int attempt = 0;
  std::int64_t pulse = 0;        // counts the lines written: one that stands still is stopped or cut off
  std::int64_t collectives = 0;  // begun
  bool inside = false;           // one is under way
  std::string call, block;       // "world:all_reduce:123", "3:forward"
  double disk_seconds = 0, disk_limit_seconds = 0;  // its own part of a save waits for an answer; both 0: for none
  bool gives_up = false;                            // its own watchdog ends it
  bool left_by_disk() const { return disk_seconds > disk_limit_seconds; }
};
std::optional<Beat> parse_beat(const std::string& line);

struct WatchLimits {
  double start_seconds = 300;  // for a rank's first sign of life
  double grace_seconds = 3;    // over a rank's own limit: its own watchdog comes first
};

class HeartbeatWatch {
 public:
  HeartbeatWatch(RunDirectory run, int attempt, std::int64_t ranks, WatchLimits limits);

  // Reads all files. A sentence when the attempt must be ended; `now` is monotonic.
  std::optional<std::string> look(double now);
  void read();  // without judging

  bool all_present() const;      // every rank has been seen
  bool past_start() const;       // one rank at least has left its start: the choice of a checkpoint is made
  // The one that keeps the others waiting: the one whose save the disk does not answer, while the loops of all go on; else
  // silent while others are not, else the one that has begun the fewest collectives, or is not in the one that the others
  // are in, or has made the least progress. nullopt: none is.
  std::optional<int> last_rank() const;
  std::string describe(int rank) const;  // "in section 'step' of step 3, block 2:forward, 71 collectives begun (process 1 on n3)"
  std::vector<pid_t> pids_here() const;

 private:
  std::vector<std::optional<Beat>> newest() const;  // as the files stand, of this attempt

  RunDirectory run_;
  int attempt_;
  WatchLimits limits_;
  std::vector<std::optional<Beat>> beats_;
  std::vector<double> quiet_seconds_;   // since the last progress seen
  std::vector<double> silent_seconds_;  // since the last line seen
  double looked_ = -1;
  std::optional<int> left_by_disk_;  // the first rank of which that was read
  bool given_up_ = false;  // a rank has: what the watch knew just before stays
};

}  // namespace smlp
