// The launcher's side of requests to a live run (core/control_folder.h; the ranks' side is worker/control.h): it makes
// the folder, discards what was asked before it could hear it (but no stop after a step: that holds over requeues),
// hears the requests that must work when the ranks can't listen (`stop_now` always; `stop` while they start or between
// attempts), and answers the stops when the run has left.
#pragma once

#include <optional>
#include <string>

#include "core/control_folder.h"
#include "core/run_directory.h"
#include "launcher/run_history.h"

namespace smlp {

enum class RunEnd {
  as_asked,     // on request
  unsaved,      // the same, but the ranks did not save, as a `stop` had asked
  by_itself,    // done, failed or given up for good
  interrupted,  // nobody asked for it: the run goes on when its job is requeued or started again
};

class ControlDesk {
 public:
  ControlDesk(const RunDirectory& run, RunHistory& history);

  // Reads what is new, a few times a second at most. `now`: monotonic.
  void look(double now);
  void look_at_once();  // where what is decided now can't wait for the next look
  bool stop_now() const { return stop_now_.has_value(); }
  bool stop() const { return stop_now() || stop_.has_value(); }  // not `stop_after`
  // The ranks have left by themselves at the step that a `stop_after` names; `last`: the last that is done.
  bool stop_after(std::optional<std::int64_t> last) const { return stop_after_ && last >= stop_after_; }
  // Logs, once, that the launcher itself acts on a stop; the words of it.
  std::string take_stop(int attempt);
  // The run ends: every request still open is answered with what became of the run; a stop after a step that has not come
  // holds where the run was only interrupted.
  void close(RunEnd end, std::optional<std::int64_t> step, const std::string& detail);

 private:
  static std::string outcome_of(RequestKind kind, RunEnd end);

  RunDirectory run_;
  RunHistory& history_;
  ControlFolder folder_;
  bool usable_ = false;
  double looked_ = -1e9;
  std::optional<Request> stop_, stop_now_;
  std::optional<std::int64_t> stop_after_;  // the step of the newest one
  bool taken_ = false;
};

}  // namespace smlp
