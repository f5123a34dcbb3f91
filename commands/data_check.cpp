#include "commands/data_check.h"

#include <fmt/format.h>

#include "core/error.h"
#include "core/files.h"
#include "core/model_check.h"
#include "data/hash_table_file.h"
#include "data/token_file.h"
#include "data/token_file_info.h"
#include "data/tokenizer.h"

namespace smlp {

namespace {

constexpr std::int64_t padding = 64;

std::string place_of(const LoadedJob& job, const std::string& key) {
  auto origin = origin_of(job, key);
  return origin == "default" ? job.file.string() : origin;
}

[[noreturn]] void refuse(const LoadedJob& job, const std::string& key, const std::string& reason,
                         ExitCode code = ExitCode::configuration) {
  throw Error(code, fmt::format("{}: {} = {}: {}", place_of(job, key), key, value_of(job.config, key), reason));
}

// Paths count from where smlp is started; whoever thinks of the job file's folder gets told.
std::string beside_job_file(const LoadedJob& job, const std::string& path, const std::string& ending) {
  const auto folder = job.file.parent_path();
  std::error_code error;
  if (folder.empty() || !std::filesystem::exists(folder / (path + ending), error)) return "";
  return fmt::format(" (paths count from the folder where smlp is started, and there is {}{}: start it there, or write the "
                     "whole path)", (folder / path).string(), ending);
}

std::unique_ptr<Tokenizer> open_job_tokenizer(const LoadedJob& job) {
  if (job.config.data.tokenizer.empty()) {
    refuse(job, "data.tokenizer", "name \"bytes\", or a folder with vocab.json and merges.txt");
  }
  try {
    return open_tokenizer(job.config.data.tokenizer);
  } catch (const Error& error) {
    refuse(job, "data.tokenizer", error.what() + beside_job_file(job, job.config.data.tokenizer, ""), error.code());
  }
}

// Tokens of a file, or an error under the key that named it.
void check_token_file(const LoadedJob& job, const std::string& key, const std::string& prefix,
                      const Tokenizer& tokenizer, std::int64_t least_tokens) {
  try {
    const TokenFile file(prefix);
    check_tokenizer(prefix, tokenizer, job.config.data.tokenizer);
    if (file.tokens() < least_tokens) {
      throw Error(ExitCode::configuration,
                  fmt::format("{} holds {} tokens, and {} are needed (model.context = {}); give it more text or shorten "
                              "the context",
                              prefix, file.tokens(), least_tokens, job.config.model.context));
    }
    // A file with our notes was just found to be the tokenizer's; of another's the tokens themselves must tell.
    if (!read_info(prefix).vocabulary && file.largest_token() >= job.config.model.vocabulary) {
      throw Error(ExitCode::configuration, fmt::format("{} holds token {}, but model.vocabulary is {}", prefix,
                                                       file.largest_token(), job.config.model.vocabulary));
    }
  } catch (const Error& error) {
    std::error_code unknown;
    const bool absent = !std::filesystem::exists(prefix + ".bin", unknown);
    refuse(job, key, error.what() + (absent ? beside_job_file(job, prefix, ".bin") : ""), error.code());
  }
}

// A user's table is read once before any rank does.
void check_hash_table(const LoadedJob& job) {
  const auto& routing = job.config.routing;
  const bool by_hash = routing.tokens == "hash" || job.config.model.kind == "hash";  // which knows no other way
  if (!by_hash || routing.hash_table == "random" || routing.hash_table == "balanced") return;
  if (kind_of_path(routing.hash_table) == PathKind::absent) {
    refuse(job, "routing.hash_table",
           fmt::format("there is no file {}; choose random or balanced, or write it: the expert of each of the {} token ids{}",
                       routing.hash_table, job.config.model.vocabulary, beside_job_file(job, routing.hash_table, "")));
  }
  try {
    read_hash_table(routing.hash_table, job.config.model.vocabulary, job.config.model.experts);
  } catch (const Error& error) {
    throw Error(error.code(), fmt::format("{}: {}", place_of(job, "routing.hash_table"), error.what()));
  }
}

}  // namespace

void resolve_vocabulary(LoadedJob& job, bool data_needed) {
  auto& vocabulary = job.config.model.vocabulary;
  if (vocabulary != 0) return;
  std::int64_t known = 0;
  try {
    known = open_job_tokenizer(job)->vocabulary();
  } catch (const Error& error) {
    if (data_needed) throw;
    throw Error(ExitCode::configuration,
                fmt::format("the size of the vocabulary is not known: set model.vocabulary, or mend the tokenizer ({})",
                            error.what()));
  }
  vocabulary = (known + padding - 1) / padding * padding;
  set_origin(job, "model.vocabulary", fmt::format("{} tokens of data.tokenizer, padded", known));
}

void check_data(const LoadedJob& job) {
  const auto& data = job.config.data;
  const auto tokenizer = open_job_tokenizer(job);
  if (job.config.model.vocabulary < tokenizer->vocabulary()) {
    refuse(job, "model.vocabulary", fmt::format("the tokenizer {} knows {} tokens; 0 takes as many as it needs",
                                                data.tokenizer, tokenizer->vocabulary()));
  }
  if (data.train.empty()) refuse(job, "data.train", "name the token files to train on; `smlp data prepare` writes them");
  for (const auto& prefix : data.train) {
    check_token_file(job, "data.train", prefix, *tokenizer, job.config.model.context + 1);
  }
  const auto unpredicted = job.config.routing.channels == "partial" ? prefix_of(job.config.model.context) : 0;
  for (const auto& prefix : data.valid) check_token_file(job, "data.valid", prefix, *tokenizer, unpredicted + 2);
  check_hash_table(job);
}

}  // namespace smlp
