// The table behind job_keys(): for every key of the job file where its value lives in a JobConfig and what values
// it may take. Reader, writer, checks, help and comparison walk it; nothing else names the keys one by one.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "core/job_file.h"

namespace smlp {

using JobField = std::variant<std::int64_t*, double*, bool*, std::string*, std::vector<std::string>*,
                              std::vector<double>*>;

// Allowed values: an interval for numbers, a list for words.
struct Allowed {
  double least = 0, most = 1e15;
  bool above_least = false, below_most = false;  // the ends themselves are not allowed
  std::vector<std::string> words{};
};

struct JobKey {
  KeyInfo info;
  Allowed allowed;
  std::function<JobField(JobConfig&)> field;

  std::string section() const { return info.key.substr(0, info.key.find('.') + 1); }  // "model.", "" at the top
  std::string member() const { return info.key.substr(section().size()); }
};

const std::vector<JobKey>& job_key_table();
const JobKey* find_job_key(std::string_view key);
std::string toml_text(const JobField& field);    // as TOML
std::string toml_quoted(std::string_view text);  // a basic string
std::string on_one_line(std::string_view text);  // with TOML's escapes for line breaks and other control characters
std::string listed(const std::vector<std::string>& words, std::string_view last = "or");  // "a, b or c"

}  // namespace smlp
