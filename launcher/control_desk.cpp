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
                     fmt::format("{}, at {}: it was meant for an earlier start", describe(request), request.time));
    }
  } catch (const Error& error) {
    history_.event("control_unusable", 0, {}, fmt::format("no requests are taken: {}", error.what()));
    tell("{}; the run goes on, but hears no requests", error.what());
  }
}

void ControlDesk::look(double now) {
  if (!usable_ || now - looked_ < interval_seconds) return;
  looked_ = now;
  if (!folder_.changed()) return;
  stop_after_ = false;
  for (auto& request : folder_.requests()) {
    if (request.kind == RequestKind::stop_now) stop_now_ = std::move(request);
    else if (request.kind == RequestKind::stop) stop_ = std::move(request);
    else if (request.kind == RequestKind::stop_after) stop_after_ = true;
  }
}

std::string ControlDesk::take_stop(int attempt) {
  const auto words = stop_now_ ? describe(*stop_now_) : stop_ ? describe(*stop_) : std::string("stop");
  if (!taken_) history_.event("request", attempt, {}, words);
  taken_ = true;
  return words;
}

void ControlDesk::close(bool as_asked, std::optional<std::int64_t> step, const std::string& detail) {
  if (!usable_) return;
  for (const auto& request : folder_.requests()) {
    const bool is_stop = request.kind == RequestKind::stop || request.kind == RequestKind::stop_now;
    try {
      if (request.kind == RequestKind::stop_after) folder_.clear(request.id);  // it was answered when it was taken
      else folder_.answer({request.id, is_stop && as_asked ? "done" : "ended", step, detail});
    } catch (const Error& error) {
      tell("{}", error.what());
    }
  }
}

}  // namespace smlp
