#include "launcher/control_desk.h"

#include <fmt/format.h>

#include "core/error.h"
#include "core/tell.h"

namespace smlp {

namespace {
constexpr double interval_seconds = 0.2;
}

ControlDesk::ControlDesk(const RunDirectory& run, RunHistory& history)
    : run_(run), history_(history), folder_(run.control()) {
  try {
    folder_.create();
    usable_ = true;
    for (const auto& request : folder_.discard()) {
      history_.event("request_discarded", 0, {},
                     fmt::format("{}, at {}: it was made before this start could hear it", describe(request), request.time));
    }
  } catch (const Error& error) {
    history_.event("control_unusable", 0, {}, fmt::format("no requests are taken: {}", error.what()));
    tell("{}; the run goes on, but hears no requests", error.what());
  }
}

void ControlDesk::look(double now) {
  if (!usable_ || now - looked_ < interval_seconds) return;
  looked_ = now;
  if (folder_.changed()) look_at_once();
}

void ControlDesk::look_at_once() {
  if (!usable_) return;
  stop_after_.reset();
  for (auto& request : folder_.requests()) {
    if (request.kind == RequestKind::stop_now) stop_now_ = std::move(request);
    else if (request.kind == RequestKind::stop) stop_ = std::move(request);
    else if (request.kind == RequestKind::stop_after) stop_after_ = request.step;
  }
}

std::string ControlDesk::take_stop(int attempt) {
  const auto words = stop_now_ ? describe(*stop_now_) : stop_ ? describe(*stop_) : std::string("stop");
  if (!taken_) history_.event("request", attempt, {}, words);
  taken_ = true;
  return words;
}

std::string ControlDesk::outcome_of(RequestKind kind, RunEnd end) {
  const bool on_request = end == RunEnd::as_asked || end == RunEnd::unsaved;
  if (kind == RequestKind::stop_now) return on_request ? "done" : "ended";
  if (kind != RequestKind::stop || !on_request) return "ended";
  return end == RunEnd::unsaved ? "failed" : "done";
}

void ControlDesk::close(RunEnd end, std::optional<std::int64_t> step, const std::string& detail) {
  if (!usable_) return;
  for (const auto& request : folder_.requests()) {
    try {
      if (request.kind != RequestKind::stop_after) {
        folder_.answer({request.id, outcome_of(request.kind, end), step, detail});
      } else if (end != RunEnd::interrupted) {
        folder_.clear(request.id);  // it was answered when it was taken
      }
    } catch (const Error& error) {
      tell("{}", error.what());
    }
  }
}

}  // namespace smlp
