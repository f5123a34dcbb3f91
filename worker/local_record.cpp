#include "worker/local_record.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <random>

#include "core/error.h"
#include "core/files.h"
#include "core/json_lines.h"
#include "core/json_text.h"

namespace smlp {

namespace {

std::string new_name() {
  std::random_device device;
  return fmt::format("smlp-{:08x}{:08x}", device(), device());
}

// A path may hold bytes that are no UTF-8, and JSON none of them.
std::string as_stored(const std::string& path) { return nlohmann::json::parse(json_text(nlohmann::json(path))); }

bool is_name(const std::string& name) {
  return name.starts_with("smlp-") && name.size() == 21 && std::ranges::all_of(name.substr(5), [](unsigned char c) {
           return std::isxdigit(c) != 0;
         });
}

}  // namespace

LocalRecord LocalRecord::of(const RunDirectory& run) {
  const auto path = as_stored(std::filesystem::weakly_canonical(run.root).string());
  if (const auto text = read_unless_absent(run.local_tier())) {
    try {
      auto known = parse(*text);
      if (known.run_ == path) return known;
    } catch (const Error&) {
      // Which of its saves count can't be known: none.
    }
  }
  LocalRecord fresh;
  fresh.name_ = new_name();
  fresh.run_ = path;
  return fresh;
}

LocalRecord LocalRecord::parse(const std::string& text) {
  try {
    const auto json = parse_json(text);
    if (json.is_discarded()) throw std::runtime_error("it is no JSON, or nested too deep");
    LocalRecord record;
    json.at("name").get_to(record.name_);
    json.at("run").get_to(record.run_);
    for (const auto& start : json.at("starts")) {
      const auto attempt = as_attempt(whole_number(start.at(0)));
      if (!attempt) throw std::runtime_error(fmt::format("there can be no attempt {}", json_text(start.at(0))));
      record.starts_.emplace_back(*attempt, whole_number(start.at(1)));
    }
    if (!is_name(record.name_)) throw std::runtime_error(fmt::format("'{}' is no name of a folder", record.name_));
    return record;
  } catch (const std::exception& error) {
    throw Error(ExitCode::bad_data, fmt::format("the record of local saves can't be read: {}", error.what()));
  }
}

std::string LocalRecord::text() const {
  return json_text(nlohmann::json{{"name", name_}, {"run", run_}, {"starts", starts_}}) + "\n";
}

bool LocalRecord::counts(SaveId save) const {
  return std::ranges::all_of(starts_, [&](const auto& start) {
    return start.first <= save.attempt || save.step <= start.second;
  });
}

void LocalRecord::began(int attempt, std::int64_t step) {
  std::erase_if(starts_, [&](const auto& start) { return start.second >= step; });
  starts_.emplace_back(attempt, step);
}

void give_up_later_local_saves(const RunDirectory& run, int attempt, std::int64_t step) {
  if (kind_of_path(run.local_tier()) == PathKind::absent) return;
  auto record = LocalRecord::of(run);
  record.began(attempt, step);
  write_durably(run.local_tier(), record.text());
}

}  // namespace smlp
