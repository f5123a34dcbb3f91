#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <utility>

#include "commands/commands.h"
#include "commands/live_run.h"
#include "commands/print_json.h"
#include "core/clock.h"
#include "core/files.h"
#include "core/host_name.h"
#include "core/json_lines.h"
#include "core/process.h"
#include "launcher/processes.h"
#include "launcher/run_status.h"

namespace smlp {

namespace {

constexpr double stuck_seconds = 2;

// Of a process of this host: "" when it runs or sleeps as usual.
std::string trouble_of(const RankPlace& place) {
  if (place.host != host_name()) return "";
  if (!is_alive(place.pid)) return fmt::format("process {} is gone", place.pid);
  const auto facts = read_if_there(fmt::format("/proc/{}/stat", place.pid));
  const auto name_end = facts.rfind(')');
  const char state = name_end == std::string::npos || name_end + 2 >= facts.size() ? '?' : facts[name_end + 2];
  if (state == 'T' || state == 't') return fmt::format("process {} is stopped (SIGCONT wakes it)", place.pid);
  if (state == 'D') return fmt::format("process {} waits for a disk", place.pid);
  return "";
}

// A rank that can't answer is told of by its last heartbeat.
nlohmann::json silent(const RankPlace& place) {
  return {{"rank", place.rank},       {"answered", false},       {"step", place.step},
          {"section", place.section}, {"progress", place.progress}, {"seconds", place.seconds_ago},
          {"host", place.host},       {"pid", place.pid},        {"trouble", trouble_of(place)}};
}

std::map<int, nlohmann::json> collect(const RunDirectory& run, double timeout_seconds) {
  const ControlFolder folder(run.control());
  const auto request = new_request(RequestKind::dump);
  interrupted();
  folder.ask(request);
  std::map<int, nlohmann::json> found;
  for (const double end = monotonic_seconds() + timeout_seconds;;) {
    const auto places = read_places(run);
    folder.open_anew();
    std::size_t hopeless = 0;
    for (const auto& place : places) {
      if (found.contains(place.rank)) continue;
      if (auto answer = folder.place(request.id, place.rank)) {
        answer->update({{"answered", true}, {"host", place.host}, {"pid", place.pid}});
        found[place.rank] = std::move(*answer);
      } else if (!trouble_of(place).empty()) {
        ++hopeless;
      }
    }
    const bool all = found.size() + hopeless >= places.size();
    const bool settled = all && (hopeless == 0 || monotonic_seconds() > end - timeout_seconds * 0.8);
    if (settled || monotonic_seconds() > end || interrupted() || !is_live(run)) {
      for (const auto& place : places) found.try_emplace(place.rank, silent(place));
      break;
    }
    sleep_seconds(0.05);
  }
  folder.clear(request.id);
  return found;
}

std::string line_of(const nlohmann::json& rank) {
  auto text = fmt::format("rank {}: step {}, section '{}' for {:.1f} s, mark {}", integer_in(rank, "rank").value_or(-1),
                          integer_in(rank, "step").value_or(-1), text_in(rank, "section"),
                          number_in(rank, "seconds").value_or(0), integer_in(rank, "progress").value_or(-1));
  if (!rank.value("answered", false)) {
    const auto trouble = text_in(rank, "trouble");
    return text + fmt::format(" (by its last heartbeat: it does not answer{})", trouble.empty() ? "" : "; " + trouble);
  }
  if (const auto place = text_in(rank, "place"); !place.empty()) text += ", " + place;
  if (rank.contains("collectives") && rank["collectives"].is_object()) {
    for (const auto& [group, call] : rank["collectives"].items()) {
      if (!call.is_object()) continue;
      text += fmt::format("\n    {}: collective {}, {}", group, integer_in(call, "number").value_or(-1), text_in(call, "last"));
    }
  }
  std::vector<std::string> frames;
  if (rank.contains("backtrace") && rank["backtrace"].is_array()) {
    for (const auto& frame : rank["backtrace"]) {
      if (frame.is_string()) frames.push_back(frame.get<std::string>());
    }
  }
  if (!frames.empty()) text += fmt::format("\n    in {}", fmt::join(frames, "\n       "));
  return text;
}

void dump(const AskOptions& options) {
  const auto run = live_run(options.run);
  const auto ranks = collect(run, options.timeout_seconds);
  if (options.json) {
    nlohmann::json document = {{"ranks", nlohmann::json::array()}};
    for (const auto& [rank, place] : ranks) document["ranks"].push_back(place);
    print_json(document);
    return;
  }
  if (ranks.empty()) fmt::print("no rank is there: the next attempt has not started yet\n");
  for (const auto& [rank, place] : ranks) fmt::print("{}\n", line_of(place));
  const auto stuck = [](const auto& entry) {
    return !entry.second.value("answered", false) || number_in(entry.second, "seconds").value_or(0) > stuck_seconds;
  };
  if (std::none_of(ranks.begin(), ranks.end(), stuck)) return;  // marks of ranks that move are of different moments
  // Of ranks with the same mark, one that does not answer holds up the others.
  const auto mark = [](const auto& entry) { return integer_in(entry.second, "progress").value_or(0); };
  const auto place = [&](const auto& entry) { return std::pair(mark(entry), entry.second.value("answered", false)); };
  const auto [least, most] = std::minmax_element(ranks.begin(), ranks.end(),
                                                 [&](const auto& a, const auto& b) { return place(a) < place(b); });
  if (place(*least) < place(*most)) {
    fmt::print("rank {} is behind: {} marks after rank {}\n", least->first, mark(*most) - mark(*least), most->first);
  }
}

}  // namespace

void add_dump_command(CLI::App& app) {
  const auto options = std::make_shared<AskOptions>();
  options->timeout_seconds = 10;
  options->when_time_is_up = "the request is withdrawn";
  auto* command = app.add_subcommand("dump", "where every rank of a live run is, also when it hangs");
  add_ask_options(*command, *options);
  command->footer("A rank that does not answer is told of by its last heartbeat. Training goes on. Ctrl-C ends the waiting.\n\n"
                  "Example:\n  smlp dump runs/demo");
  command->callback([options] { dump(*options); });
}

}  // namespace smlp
