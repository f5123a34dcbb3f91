#include "data/token_file_info.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/files.h"
#include "core/json_lines.h"
#include "core/json_text.h"

namespace smlp {

namespace {

void take(const nlohmann::json& file, const char* key, std::optional<std::string>& value) {
  if (const auto found = file.find(key); found != file.end()) value = found->get<std::string>();
}

void take(const nlohmann::json& file, const char* key, std::optional<std::int64_t>& value) {
  const auto found = file.find(key);
  if (found == file.end()) return;
  value = whole_number(*found);
  if (*value < 0) throw Error(ExitCode::bad_data, fmt::format("{} is {}", key, *value));
}

template <class T>
void give(nlohmann::ordered_json& file, const char* key, const std::optional<T>& value) {
  if (value) file[key] = *value;
}

}  // namespace

TokenFileInfo read_info(const std::string& prefix) {
  TokenFileInfo info;
  const auto path = prefix + ".json";
  const auto kind = kind_of_path(path);
  if (kind == PathKind::absent) return info;
  const auto refuse = [&](const std::string& why) {
    throw Error(ExitCode::bad_data, fmt::format("{} is damaged ({}): prepare the data again, or remove this file if the "
                                                "tokens beside it are good", path, why));
  };
  if (kind != PathKind::file) refuse("it is not an ordinary file");
  const std::string text = read_text(path);
  try {
    const auto file = nlohmann::json::parse(text);
    if (!file.is_object()) throw Error(ExitCode::bad_data, "it is no JSON object");
    take(file, "tokenizer", info.tokenizer);
    take(file, "fingerprint", info.fingerprint);
    take(file, "vocabulary", info.vocabulary);
    take(file, "documents", info.documents);
    take(file, "tokens", info.tokens);
    take(file, "bytes", info.bytes);
  } catch (const nlohmann::json::exception& error) {
    refuse(json_fault(error));
  } catch (const Error& error) {
    refuse(error.what());
  }
  return info;
}

void write_info(const std::string& prefix, const TokenFileInfo& info) {
  nlohmann::ordered_json file;
  give(file, "tokenizer", info.tokenizer);
  give(file, "fingerprint", info.fingerprint);
  give(file, "vocabulary", info.vocabulary);
  give(file, "documents", info.documents);
  give(file, "tokens", info.tokens);
  give(file, "bytes", info.bytes);
  write_durably(prefix + ".json", json_text(file, 2) + '\n');
}

void check_tokenizer(const std::string& prefix, const Tokenizer& tokenizer,
                     const std::string& tokenizer_name) {
  const auto info = read_info(prefix);
  if (!info.fingerprint || *info.fingerprint == tokenizer.fingerprint()) return;
  throw Error(
      ExitCode::configuration,
      fmt::format("{} was prepared with another tokenizer ({}) than {}: name that one as data.tokenizer, or "
                  "prepare the text again with `smlp data prepare --tokenizer {}`",
                  prefix, info.tokenizer.value_or("not named"), tokenizer_name, tokenizer_name));
}

}  // namespace smlp
