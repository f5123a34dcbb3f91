#include "data/bpe_trainer.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "core/cores.h"
#include "core/error.h"
#include "core/files.h"
#include "data/byte_alphabet.h"
#include "data/learn_merges.h"
#include "data/output_lock.h"
#include "data/tokenizer.h"

namespace smlp {

namespace {

constexpr std::int64_t smallest_vocabulary = 257;

std::string vocabulary_text(const std::vector<std::string>& tokens) {
  std::string text = "{\n";
  const auto line = [&](const std::string& spelling, std::size_t id, const char* end) {
    text += fmt::format("{}: {}{}\n", nlohmann::json(spelling).dump(), id, end);
  };
  for (std::size_t id = 0; id < tokens.size(); ++id) line(spell_bytes(tokens[id]), id, ",");
  line(std::string(end_of_text_name), tokens.size(), "");
  return text + "}\n";
}

std::string merges_text(const LearnedMerges& learned) {
  std::string text = "#version: 0.2\n";
  const auto spelling = [&](std::int32_t id) {
    return spell_bytes(learned.tokens[static_cast<std::size_t>(id)]);
  };
  for (const auto& merge : learned.merges)
    text += fmt::format("{} {}\n", spelling(merge.left), spelling(merge.right));
  return text;
}

void write_tokenizer(const std::filesystem::path& folder, const LearnedMerges& learned) {
  std::error_code code;
  std::filesystem::create_directories(folder, code);
  if (!code)
    std::filesystem::remove(folder / "merges.txt",
                            code);  // an older one must not lie beside a new vocabulary
  if (code) {
    throw Error(ExitCode::io_failed,
                fmt::format("the folder {} can't be written: {}", folder.string(), code.message()));
  }
  write_durably(folder / "vocab.json", vocabulary_text(learned.tokens));
  write_durably(folder / "merges.txt", merges_text(learned));
}

}  // namespace

TrainerResult train_tokenizer(const TrainerSettings& settings) {
  if (settings.vocabulary < smallest_vocabulary || settings.vocabulary > largest_vocabulary) {
    throw Error(
        ExitCode::usage,
        fmt::format(
            "a vocabulary of {} is not possible: it needs {} tokens at least (256 bytes and {}), {} at most",
            settings.vocabulary, smallest_vocabulary, end_of_text_name, largest_vocabulary));
  }
  const std::filesystem::path folder = settings.output;
  const auto files =
      find_text(settings.inputs, {(folder / "vocab.json").string(), (folder / "merges.txt").string()});
  const OutputLock lock(settings.output, folder / lock_of("tokenizer"), {"vocab.json", "merges.txt"});
  TrainerProgress progress{
      .bytes_read = 0, .bytes_in_all = 0, .vocabulary = 0, .wanted = settings.vocabulary};
  for (const auto& file : files) progress.bytes_in_all += file.bytes;
  const auto report = [&] {
    if (settings.stop && settings.stop()) {
      throw Error(ExitCode::call_again, "stopped on request: no tokenizer was written");
    }
    if (settings.progress) settings.progress(progress);
  };
  const auto threads = settings.threads > 0 ? settings.threads : threads_here();
  const auto words = count_words(files, threads, [&](std::int64_t bytes) {
    progress.bytes_read = bytes;
    report();
  });
  if (words.empty()) {
    throw Error(ExitCode::configuration,
                fmt::format("there is no text in {}", fmt::join(settings.inputs, ", ")));
  }
  progress.bytes_read = progress.bytes_in_all;
  const auto learned = learn_merges(words, settings.vocabulary - 1, [&](std::int64_t tokens) {
    progress.vocabulary = tokens + 1;
    report();
  });
  write_tokenizer(folder, learned);
  return {.vocabulary = std::ssize(learned.tokens) + 1,
          .merges = std::ssize(learned.merges),
          .distinct_words = std::ssize(words),
          .bytes = progress.bytes_in_all};
}

}  // namespace smlp
