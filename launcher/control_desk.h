// The launcher's side of requests to a live run (core/control_folder.h; the ranks' side is worker/control.h): it makes
// the folder, discards what an earlier start left unanswered, hears the requests that must work when the ranks can't
// listen (`stop_now` always; `stop` while they start or between attempts), and answers the stops when the run has left.
#pragma once

#include <optional>
#include <string>

#include "core/control_folder.h"
#include "core/run_directory.h"
#include "launcher/run_history.h"

namespace smlp {

class ControlDesk {
 public:
  ControlDesk(const RunDirectory& run, RunHistory& history);

  // Reads what is new, a few times a second at most. `now`: monotonic.
  void look(double now);
  bool stop_now() const { return stop_now_.has_value(); }
  bool stop() const { return stop_now() || stop_.has_value(); }  // not `stop_after`
  bool stop_after() const { return stop_after_; }                // the ranks leave by themselves at that step
  // Logs, once, that the launcher itself acts on a stop; the words of it.
  std::string take_stop(int attempt);
  // The run ends: every request still open is answered with what became of the run.
  void close(bool as_asked, std::optional<std::int64_t> step, const std::string& detail);

 private:
  RunDirectory run_;
  RunHistory& history_;
  ControlFolder folder_;
  bool usable_ = false;
  double looked_ = -1e9;
  std::optional<Request> stop_, stop_now_;
  bool stop_after_ = false, taken_ = false;
};

}  // namespace smlp
