#include "worker/control.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <chrono>
#include <exception>

#include "core/clock.h"
#include "core/files.h"
#include "core/json_text.h"
#include "worker/backtrace.h"

namespace smlp {

namespace {

// Of rank 0, and of the others, who hear dumps alone: hundreds of them would keep a file system busy.
constexpr auto look_interval = std::chrono::milliseconds(250), look_interval_of_others = std::chrono::milliseconds(1000);
constexpr double backtrace_seconds = 0.5;
constexpr std::size_t most_refusals = 20;  // told of in an attempt

}  // namespace

Control::Control(const RunDirectory& run, int attempt, int rank, pthread_t loop, Place where)
    : run_(run), attempt_(attempt), rank_(rank), loop_(loop), where_(std::move(where)), folder_(run.control()) {
  prepare_backtraces();
  thread_ = std::jthread([this](std::stop_token stop) { listen(stop); });
}

Control::~Control() {
  thread_.request_stop();
  thread_.join();
}

void Control::set_place(Place more) {
  const std::scoped_lock lock(mutex_);
  more_ = std::move(more);
}

bool Control::stop_asked(std::int64_t step) {
  const std::scoped_lock lock(mutex_);
  step_ = step;
  return stop_after_ && step >= *stop_after_;
}

bool Control::knows_step() {
  const std::scoped_lock lock(mutex_);
  return step_.has_value();
}

bool Control::save_asked() {
  const std::scoped_lock lock(mutex_);
  return !saves_.empty();
}

void Control::save_begun() {
  const std::scoped_lock lock(mutex_);
  begun_.insert(begun_.end(), saves_.begin(), saves_.end());
  saves_.clear();
}

void Control::saved(const SaveOutcome& outcome) {
  const std::scoped_lock lock(mutex_);
  if (outcome.published) {
    answer_saves(begun_, "done", outcome.step, fmt::format("the checkpoint of step {} is published", outcome.step));
  } else {
    answer_saves(begun_, "failed", outcome.step,
                 fmt::format("the checkpoint of step {} could not be written: {}", outcome.step, outcome.failure));
  }
}

void Control::leaving(std::int64_t saved_step) {
  const std::scoped_lock lock(mutex_);
  answer_saves(saves_, "done", saved_step,
               fmt::format("the checkpoint of step {} is published, and the ranks leave", saved_step));
}

void Control::leaving_without_a_save(const std::string& why) {
  const std::scoped_lock lock(mutex_);
  answer_saves(saves_, "failed", step_.value_or(0), fmt::format("nothing is saved, and the ranks leave: {}", why));
}

// The mutex is held.
void Control::answer_saves(std::vector<std::string>& ids, const std::string& outcome, std::int64_t step,
                           const std::string& detail) {
  for (const auto& id : ids) answers_.push_back({id, outcome, step, detail});
  ids.clear();
  wake_.notify_all();
}

void Control::listen(std::stop_token stop) {
  for (bool last = false; !last;) {
    std::vector<Answer> due;
    {
      std::unique_lock lock(mutex_);
      wake_.wait_for(lock, stop, rank_ == 0 ? look_interval : look_interval_of_others, [this] { return !answers_.empty(); });
      last = stop.stop_requested();
      due.swap(answers_);
    }
    give_again();
    for (const auto& answer : due) give(answer);
    try {
      if (!last && folder_.changed()) look();
    } catch (const std::exception& error) {
      spdlog::warn("requests can't be read: {}", error.what());
    }
  }
}

// One that can't be written waits for its next try: whoever asked waits for it, and a full disk may have room again.
void Control::give(const Answer& answer) {
  try {
    folder_.answer(answer);
  } catch (const std::exception& error) {
    if (not_given_.empty()) spdlog::warn("an answer waits until it can be written: {}", error.what());
    not_given_.push_back(answer);
  }
}

void Control::give_again() {
  std::erase_if(not_given_, [this](const Answer& answer) {
    try {
      folder_.answer(answer);
      return true;
    } catch (const std::exception&) {
      return false;
    }
  });
}

void Control::look() {
  std::erase_if(known_, [this](const std::string& id) { return !folder_.asked(id); });
  std::vector<std::string> refused;
  for (const auto& request : folder_.requests(&refused)) {
    if (request.kind == RequestKind::stop_after && !knows_step()) continue;  // not while the ranks begin
    if (known_.insert(request.id).second) hear(request);
  }
  if (rank_ != 0) return;
  for (const auto& sentence : refused) {
    if (refused_.size() < most_refusals && refused_.insert(sentence).second) event("request_refused", sentence);
  }
}

// First it takes effect: what can't be written about it, on a full disk, takes nothing back.
void Control::hear(const Request& request) {
  if (request.kind == RequestKind::dump) return answer_dump(request);
  if (rank_ != 0 || request.kind == RequestKind::stop_now) return;
  std::optional<Answer> accepted;
  if (request.kind == RequestKind::stop_after) {
    accepted = hear_stop_after(request);
  } else {
    const std::scoped_lock lock(mutex_);
    if (request.kind == RequestKind::save) saves_.push_back(request.id);
    if (request.kind == RequestKind::stop) stop_after_ = 0;
  }
  event("request", describe(request));
  if (accepted) give(*accepted);
}

Answer Control::hear_stop_after(const Request& request) {
  std::int64_t last = 0, now = 0;
  {
    const std::scoped_lock lock(mutex_);
    now = step_.value_or(0);
    last = std::max(request.step, now + 1);
    if (stop_after_ != 0) stop_after_ = last;  // not over a stop at the next step
  }
  if (!stop_after_id_.empty()) folder_.clear(stop_after_id_);  // the newest one counts
  stop_after_id_ = request.id;
  const auto late = last > request.step ? fmt::format("step {} is past: ", request.step) : std::string();
  return {request.id, "accepted", last,
          fmt::format("{}the run is at step {}, and stops after step {} is done", late, now, last)};
}

void Control::answer_dump(const Request& request) {
  auto place = where_();
  place["rank"] = rank_;
  {
    const std::scoped_lock lock(mutex_);
    if (more_) place.update(more_());
  }
  place["backtrace"] = backtrace_of(loop_, backtrace_seconds);
  spdlog::info("{}: {}", describe(request), json_text(place));
  try {
    folder_.put_place(request.id, rank_, place);
  } catch (const std::exception& error) {
    spdlog::warn("where this rank is stands here alone: {}", error.what());
  }
}

void Control::event(const std::string& name, const std::string& detail) {
  nlohmann::json line = {{"time", utc_time()}, {"event", name}, {"attempt", attempt_}, {"detail", detail}};
  {
    const std::scoped_lock lock(mutex_);
    line["step"] = step_.value_or(0);
  }
  spdlog::info("{}: {}", name, detail);
  try {
    append_line(run_.events(), json_text(line));
  } catch (const std::exception& error) {
    spdlog::warn("{}; this event stands here alone", error.what());
  }
}

}  // namespace smlp
