// Requests to a live run, and what came of them: small files in RUN/control, the one channel from a user's command to
// the launcher and the ranks, on any host that sees the run directory.
//   request-ID.json     {"id","kind","who","time","step"}    by a command; taken away when it is answered
//   answer-ID.json      {"id","outcome","step","detail"}     by the launcher or rank 0; taken away by who asked
//   place-ID-RANK.json  where a rank is                      by every rank, for a `dump`
// Whoever may write into the folder may ask; the launcher makes it for the run's owner, and for his group where the
// umask lets the group write. What lies there may be anything: a file that is no proper request is refused, once.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <ctime>
#include <filesystem>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json_fwd.hpp>

namespace smlp {

enum class RequestKind : int { save, stop, stop_now, stop_after, dump };
const char* name_of(RequestKind kind);

struct Request {
  std::string id;  // new_request() makes one; ids sort by age
  RequestKind kind = RequestKind::save;
  std::string who, time;
  std::int64_t step = 0;  // of stop_after
};
Request new_request(RequestKind kind, std::int64_t step = 0);
std::string describe(const Request& request);  // "stop after step 40, asked by eva@login1 (process 4711)"

struct Answer {
  std::string id;
  std::string outcome;  // done, accepted, failed, ended (the run did, before it could be done)
  std::optional<std::int64_t> step{};
  std::string detail{};  // a sentence without a full stop
};

class ControlFolder {
 public:
  explicit ControlFolder(std::filesystem::path folder) : folder_(std::move(folder)) {}

  // The launcher's, at its start. Throws Error(io_failed).
  void create() const;
  // True when there may be something that no call of requests() has seen since.
  bool changed();
  // Proper requests, oldest first, a thousand at most, whatever else lies there; of the files that only pretend to be one,
  // the reason why they are refused.
  std::vector<Request> requests(std::vector<std::string>* refused = nullptr) const;

  // For who waits for a file here: a network file system shows one that was not there before half a minute later, but where
  // the folder is opened it asks its server.
  void open_anew() const;
  void ask(const Request& request) const;  // throws Error(io_failed)
  bool asked(const std::string& id) const;  // false: this request is gone, and nobody waits for an answer to it
  std::optional<Answer> answer_to(const std::string& id) const;
  // An answer or a place for a request that is gone would lie there for good, and is dropped.
  void answer(const Answer& answer) const;  // and takes the request away, unless it is only accepted
  void put_place(const std::string& id, int rank, const nlohmann::json& place) const;
  std::optional<nlohmann::json> place(const std::string& id, int rank) const;
  void clear(const std::string& id) const;  // everything of this request
  // All requests and answers there are, but stops after a step: these were noted, and hold until the run has left at it.
  // The requests that are gone, for the records.
  std::vector<Request> discard() const;

 private:
  std::filesystem::path file(const char* what, const std::string& id) const;
  std::vector<std::string> names(std::string_view beginning) const;  // sorted
  void remove(std::string_view beginning, const std::set<std::string>& kept = {}) const;

  std::filesystem::path folder_;
  std::int64_t seen_seconds_ = -1, seen_nanoseconds_ = 0;
  int looks_ = 0, looks_since_change_ = 0;
};

}  // namespace smlp
