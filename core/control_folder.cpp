#include "core/control_folder.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <pwd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <random>
#include <set>

#include "core/clock.h"
#include "core/error.h"
#include "core/files.h"
#include "core/host_name.h"
#include "core/json_lines.h"
#include "core/json_text.h"

namespace smlp {

namespace {

constexpr std::array kinds = {"save", "stop", "stop_now", "stop_after", "dump"};
constexpr std::int64_t largest_request = 4096, largest_answer = 1 << 20;
constexpr std::size_t most_found = 1000, most_refused = 1000;  // by one look
constexpr int looks_after_change = 4, looks_between = 40;
const std::string ending = ".json";

// Not only stat: a network file system asks its server then.
int open_folder(const std::filesystem::path& folder) {
  return ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_NONBLOCK | O_CLOEXEC);
}

bool is_id(const std::string& id) {
  const auto plain = [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || c == '-'; };
  return !id.empty() && id.size() <= 64 && std::all_of(id.begin(), id.end(), plain);
}

std::string id_in(const std::string& name, const std::string& beginning) {
  if (!name.starts_with(beginning) || !name.ends_with(ending)) return "";
  if (name.size() <= beginning.size() + ending.size()) return "";
  return name.substr(beginning.size(), name.size() - beginning.size() - ending.size());
}

std::string dump(const nlohmann::json& value) {
  return json_text(value) + "\n";
}

std::string user_name() {
  const auto* entry = getpwuid(geteuid());
  return entry != nullptr ? entry->pw_name : fmt::format("user {}", geteuid());
}

// "" when a file may be read as a request: it is ours or root's, or the folder is open to our group on purpose.
std::string wrong_owner(const std::filesystem::path& folder, const std::filesystem::path& file) {
  struct stat of_folder {}, of_file {};
  if (::stat(folder.c_str(), &of_folder) != 0 || ::lstat(file.c_str(), &of_file) != 0) return "it is gone";
  if (of_file.st_uid == 0 || of_file.st_uid == geteuid()) return "";
  const bool shared = (of_folder.st_mode & S_IWGRP) != 0 && (of_folder.st_mode & S_IWOTH) == 0;
  return shared ? "" : fmt::format("it belongs to user {}", of_file.st_uid);
}

std::string parse(const std::string& text, const std::string& id, Request& request) {
  const auto json = parse_json(text);
  if (!json.is_object()) return "it is no JSON object";
  if (text_in(json, "id") != id) return "its id is not that of its name";
  const auto kind = std::find(kinds.begin(), kinds.end(), text_in(json, "kind"));
  if (kind == kinds.end()) return "there is no such kind of request";
  request = {id, static_cast<RequestKind>(kind - kinds.begin()), text_in(json, "who"), text_in(json, "time"),
             integer_in(json, "step").value_or(0)};
  return "";
}

}  // namespace

const char* name_of(RequestKind kind) { return kinds[static_cast<std::size_t>(kind)]; }

Request new_request(RequestKind kind, std::int64_t step) {
  std::random_device device;
  return {.id = fmt::format("{:013}-{}-{:08x}", static_cast<std::int64_t>(unix_seconds() * 1000), getpid(), device()),
          .kind = kind,
          .who = fmt::format("{}@{} (process {})", user_name(), host_name(), getpid()),
          .time = utc_time(),
          .step = step};
}

std::string describe(const Request& request) {
  const auto what = request.kind == RequestKind::stop_after ? fmt::format("stop after step {}", request.step)
                    : request.kind == RequestKind::stop_now ? std::string("stop at once")
                                                            : std::string(name_of(request.kind));
  return request.who.empty() ? what : fmt::format("{}, asked by {}", what, request.who);
}

void ControlFolder::create() const {
  if (::mkdir(folder_.c_str(), 0770) != 0 && errno != EEXIST) {
    throw Error(ExitCode::io_failed, fmt::format("making {} failed: {}", folder_.string(), std::strerror(errno)));
  }
  struct stat facts {};
  if (::lstat(folder_.c_str(), &facts) != 0 || !S_ISDIR(facts.st_mode)) {
    throw Error(ExitCode::io_failed, fmt::format("{} is no folder", folder_.string()));
  }
  if ((facts.st_mode & S_IWGRP) == 0) ::chmod(folder_.c_str(), 0700);  // what the umask kept from the group
}

void ControlFolder::open_anew() const {
  if (const int descriptor = open_folder(folder_); descriptor >= 0) ::close(descriptor);
}

bool ControlFolder::changed() {
  const int descriptor = open_folder(folder_);
  if (descriptor < 0) return false;
  struct stat facts {};
  const bool known = ::fstat(descriptor, &facts) == 0;
  ::close(descriptor);
  if (!known) return false;
  ++looks_;
  if (facts.st_mtim.tv_sec != seen_seconds_ || facts.st_mtim.tv_nsec != seen_nanoseconds_) {
    seen_seconds_ = facts.st_mtim.tv_sec;
    seen_nanoseconds_ = facts.st_mtim.tv_nsec;
    looks_since_change_ = 0;
    return true;
  }
  // Two changes within a tick of the file system's clock look like one; a server's time may not move at all.
  return ++looks_since_change_ < looks_after_change || looks_ % looks_between == 0;
}

std::vector<std::string> ControlFolder::names(std::string_view beginning) const {
  std::vector<std::string> found;
  DIR* folder = ::opendir(folder_.c_str());
  if (folder == nullptr) return found;
  while (const auto* entry = ::readdir(folder)) {
    if (std::string_view(entry->d_name).starts_with(beginning)) found.emplace_back(entry->d_name);
  }
  ::closedir(folder);
  std::sort(found.begin(), found.end());
  return found;
}

std::vector<Request> ControlFolder::requests(std::vector<std::string>* refused) const {
  std::vector<Request> found;
  for (const auto& name : names("request-")) {
    if (name.ends_with(".tmp")) continue;
    if (found.size() == most_found) break;
    const auto id = id_in(name, "request-");
    Request request;
    auto reason = is_id(id) ? wrong_owner(folder_, folder_ / name) : "its name is none of a request";
    if (reason.empty()) {
      const auto text = read_plain_file(folder_ / name, largest_request);
      reason = text ? parse(*text, id, request)
                    : fmt::format("it is no plain file of at most {} bytes", largest_request);
    }
    if (reason.empty()) {
      found.push_back(std::move(request));
    } else if (refused != nullptr && refused->size() < most_refused && reason != "it is gone") {
      refused->push_back(fmt::format("{}: {}", name, reason));
    }
  }
  return found;
}

std::filesystem::path ControlFolder::file(const char* what, const std::string& id) const {
  return folder_ / fmt::format("{}-{}{}", what, id, ending);
}

void ControlFolder::ask(const Request& request) const {
  if (::access(folder_.c_str(), F_OK) == 0 && ::access(folder_.c_str(), W_OK | X_OK) != 0) {
    throw Error(ExitCode::io_failed,
                fmt::format("{} can't be written ({}): who started the run decides who may ask it for something; ask as that "
                            "user", folder_.string(), std::strerror(errno)));
  }
  write_atomically(file("request", request.id), dump({{"id", request.id},
                                                      {"kind", name_of(request.kind)},
                                                      {"who", request.who},
                                                      {"time", request.time},
                                                      {"step", request.step}}));
}

bool ControlFolder::asked(const std::string& id) const {
  return ::access(file("request", id).c_str(), F_OK) == 0 || errno != ENOENT;
}

std::optional<Answer> ControlFolder::answer_to(const std::string& id) const {
  const auto text = read_plain_file(file("answer", id), largest_answer);
  if (!text) return std::nullopt;
  const auto json = parse_json(*text);
  if (!json.is_object()) return std::nullopt;
  return Answer{id, text_in(json, "outcome"), integer_in(json, "step"), text_in(json, "detail")};
}

void ControlFolder::answer(const Answer& answer) const {
  if (!asked(answer.id)) return;
  nlohmann::json json = {{"id", answer.id}, {"outcome", answer.outcome}, {"detail", answer.detail}};
  if (answer.step) json["step"] = *answer.step;
  write_atomically(file("answer", answer.id), dump(json));
  if (answer.outcome != "accepted") ::unlink(file("request", answer.id).c_str());
}

void ControlFolder::put_place(const std::string& id, int rank, const nlohmann::json& place) const {
  const auto path = file("place", fmt::format("{}-{:04}", id, rank));
  write_atomically(path, dump(place));
  if (!asked(id)) ::unlink(path.c_str());  // who asked is gone
}

std::optional<nlohmann::json> ControlFolder::place(const std::string& id, int rank) const {
  const auto text = read_plain_file(file("place", fmt::format("{}-{:04}", id, rank)), largest_answer);
  auto json = parse_json(text.value_or(""));
  return json.is_object() ? std::optional(std::move(json)) : std::nullopt;
}

void ControlFolder::clear(const std::string& id) const {
  for (const char* what : {"request", "answer"}) ::unlink(file(what, id).c_str());
  remove("place-" + id + "-");
}

// A folder of such a name stays, and is refused.
void ControlFolder::remove(std::string_view beginning, const std::set<std::string>& kept) const {
  for (const auto& name : names(beginning)) {
    if (!kept.contains(name)) ::unlink((folder_ / name).c_str());
  }
}

std::vector<Request> ControlFolder::discard() const {
  auto found = requests();
  const auto noted = std::stable_partition(found.begin(), found.end(), [](const Request& request) {
    return request.kind != RequestKind::stop_after;
  });
  std::set<std::string> kept;
  for (auto request = noted; request != found.end(); ++request) kept.insert(file("request", request->id).filename());
  for (const char* beginning : {"request-", "answer-", "place-"}) remove(beginning, kept);
  found.erase(noted, found.end());
  return found;
}

}  // namespace smlp
