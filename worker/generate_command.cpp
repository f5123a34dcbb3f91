#include <fmt/format.h>

#include <cstdio>

#include "core/error.h"
#include "worker/commands.h"

namespace smlp {

namespace {

// The length of the longest prefix of `text` that does not end inside a UTF-8 character: a token may hold a
// part of one, and a terminal should get it whole.
std::size_t whole_characters(const std::string& text) {
  for (std::size_t back = 1; back <= 3 && back <= text.size(); ++back) {
    const auto byte = static_cast<unsigned char>(text[text.size() - back]);
    if (byte < 0x80) break;
    if (byte >= 0xC0) {
      const std::size_t length = byte >= 0xF0 ? 4 : byte >= 0xE0 ? 3 : 2;
      return back < length ? text.size() - back : text.size();
    }
  }
  return text.size();
}

void print(const std::string& text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() || std::fflush(stdout) != 0) {
    throw Error(ExitCode::io_failed, "writing to the standard output failed");
  }
}

std::unique_ptr<Tokenizer> open_named(const std::string& name) {
  try {
    return open_tokenizer(name);
  } catch (const Error& error) {
    if (std::filesystem::path(name).is_absolute()) throw;
    throw Error(error.code(), fmt::format("{}. The job names it from the folder where it was started: generate there",
                                          error.what()));
  }
}

std::vector<std::int32_t> skipped_ids(const Tokenizer& tokenizer) {
  std::vector<std::int32_t> ids;
  for (std::int32_t id = 0; id < tokenizer.vocabulary(); ++id) {
    if (!tokenizer.has(id)) ids.push_back(id);
  }
  return ids;
}

std::vector<std::int32_t> encode_prompt(const Tokenizer& tokenizer, const std::string& name, const std::string& prompt) {
  std::vector<std::int32_t> ids;
  tokenizer.encode(prompt, ids);
  if (!ids.empty()) return ids;
  if (tokenizer.has_end_of_text()) return {tokenizer.end_of_text()};
  throw Error(ExitCode::configuration,
              fmt::format("an empty prompt stands for {}, which the tokenizer {} lacks: begin the text with --prompt",
                          end_of_text_name, name));
}

}  // namespace

void generate_command(const std::filesystem::path& checkpoint, const std::string& prompt,
                      GenerationSettings settings) {
  auto [job, engine, fingerprint] = load_model(checkpoint);
  const auto tokenizer = open_named(job.data.tokenizer);
  expect_tokenizer(*tokenizer, job.data.tokenizer, fingerprint, checkpoint.string());
  const bool root = engine->grid().world->rank() == 0;
  const auto ids = encode_prompt(*tokenizer, job.data.tokenizer, prompt);
  settings.context = job.model.context;
  settings.vocabulary = job.model.vocabulary;
  settings.known_tokens = tokenizer->vocabulary();
  settings.absent_tokens = skipped_ids(*tokenizer);
  if (tokenizer->has_end_of_text()) settings.stop_token = tokenizer->end_of_text();
  std::string pending;
  if (root) print(prompt);
  generate(engine->model(), engine->backend(), engine->arena(), ids, value_type(job), settings,
           [&](std::int32_t id) {
             if (!root) return;
             pending += tokenizer->decode(std::span(&id, 1));
             const auto whole = whole_characters(pending);
             print(pending.substr(0, whole));
             pending.erase(0, whole);
           });
  if (root) print(pending + "\n");
}

}  // namespace smlp
