#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <memory>
#include <nlohmann/json.hpp>
#include <utility>

#include "commands/commands.h"
#include "commands/print_json.h"
#include "commands/usage.h"
#include "core/error.h"
#include "core/tell.h"
#include "core/utf8.h"
#include "data/bpe_trainer.h"
#include "data/prepare.h"
#include "data/token_file.h"
#include "data/tokenizer.h"
#include "launcher/signal_queue.h"

namespace smlp {

namespace {

// While it lives, the first signal that asks to stop only asks: the work ends at its next piece and cleans up behind itself.
volatile std::sig_atomic_t stop_asked = 0;

class PoliteStop {
 public:
  PoliteStop() {
    struct sigaction action {};
    action.sa_handler = [](int) { stop_asked = 1; };
    action.sa_flags = static_cast<int>(SA_RESETHAND);
    for (const int number : signals_to_take()) {
      struct sigaction before {};
      ::sigaction(number, &action, &before);
      before_.emplace_back(number, before);
    }
  }
  ~PoliteStop() {
    for (const auto& [number, before] : before_) ::sigaction(number, &before, nullptr);
  }
  PoliteStop(const PoliteStop&) = delete;
  PoliteStop& operator=(const PoliteStop&) = delete;

 private:
  std::vector<std::pair<int, struct sigaction>> before_;
};

// One line on stderr: rewritten in place on a terminal, else a new one every ten seconds.
class ReadingProgress {
 public:
  ~ReadingProgress() {
    if (shown_ && terminal_) std::fputs("\r\033[K", stderr);
  }
  template <class Text>
  void show(std::int64_t done, std::int64_t in_all, Text&& text) {
    const auto now = Clock::now();
    if (now - last_ < (terminal_ ? std::chrono::milliseconds(200) : std::chrono::milliseconds(10000))) return;
    last_ = now;
    shown_ = true;
    const double seconds = std::chrono::duration<double>(now - start_).count(),
                 bytes = static_cast<double>(done);
    const double rest = static_cast<double>(in_all) - bytes;
    const auto left =
        rest > 0 && bytes * 50 > rest ? fmt::format(", {:.0f} s left", seconds * rest / bytes) : "";
    const auto line = fmt::format("{:.1f} of {:.1f} MB, {:.1f} MB/s{}{}", bytes / 1e6,
                                  static_cast<double>(in_all) / 1e6, bytes / 1e6 / seconds, left, text());
    std::fputs((terminal_ ? "\r\033[K" + line : line + "\n").c_str(), stderr);
    std::fflush(stderr);
  }

 private:
  using Clock = std::chrono::steady_clock;
  bool terminal_ = ::isatty(STDERR_FILENO) == 1, shown_ = false;
  Clock::time_point start_ = Clock::now(), last_ = start_;
};

nlohmann::ordered_json facts_of(const TokenFileInfo& info) {
  nlohmann::ordered_json facts;
  const auto give = [&](const char* key, const auto& value) {
    if (value) facts[key] = *value;
  };
  give("tokenizer", info.tokenizer);
  give("fingerprint", info.fingerprint);
  give("vocabulary", info.vocabulary);
  give("documents", info.documents);
  give("tokens", info.tokens);
  give("bytes", info.bytes);
  return facts;
}

void print_side(const std::string& prefix, const TokenFileInfo& info) {
  fmt::print("{}: {} documents, {} bytes, {} tokens ({:.2f} bytes a token)\n", prefix, *info.documents,
             *info.bytes, *info.tokens, static_cast<double>(*info.bytes) / static_cast<double>(*info.tokens));
}

void run_prepare(PrepareSettings settings, bool json) {
  const PoliteStop polite;
  auto line = std::make_unique<ReadingProgress>();
  settings.stop = [] { return stop_asked != 0; };
  settings.progress = [&](const PrepareProgress& progress) {
    line->show(progress.bytes_read, progress.bytes_in_all,
               [&] { return fmt::format(", {} documents, {} tokens", progress.documents, progress.tokens); });
  };
  const auto result = prepare(settings);
  line.reset();
  if (json) {
    nlohmann::ordered_json document = {{"output", settings.output}};
    document["train"] = facts_of(result.train);
    if (result.valid) {
      document["valid_output"] = settings.valid_output;
      document["valid"] = facts_of(*result.valid);
    }
    print_json(document);
    return;
  }
  print_side(settings.output, result.train);
  if (result.valid) print_side(settings.valid_output, *result.valid);
}

void run_trainer(TrainerSettings settings, bool json) {
  const PoliteStop polite;
  auto line = std::make_unique<ReadingProgress>();
  settings.stop = [] { return stop_asked != 0; };
  settings.progress = [&](const TrainerProgress& progress) {
    line->show(progress.bytes_read, progress.bytes_in_all, [&] {
      return progress.vocabulary == 0
                 ? std::string(", counting words")
                 : fmt::format(", {} of {} tokens", progress.vocabulary, progress.wanted);
    });
  };
  const auto result = train_tokenizer(settings);
  line.reset();
  if (result.vocabulary < settings.vocabulary) {
    tell("note: only {} of {} tokens: no pair of tokens in the text occurs twice any more",
               result.vocabulary, settings.vocabulary);
  }
  if (json) {
    print_json({{"output", settings.output},
           {"vocabulary", result.vocabulary},
           {"merges", result.merges},
           {"distinct_words", result.distinct_words},
           {"bytes", result.bytes}});
  } else {
    fmt::print("{}: {} tokens, {} of them merges, from {} distinct words in {} bytes\n", settings.output,
               result.vocabulary, result.merges, result.distinct_words, result.bytes);
  }
}

void inspect(const std::string& prefix, bool every_token, bool json) {
  const TokenFile file(prefix);
  std::vector<std::int32_t> first(static_cast<std::size_t>(std::min<std::int64_t>(file.tokens(), 16)));
  file.read(0, first);
  const auto info = read_info(prefix);
  nlohmann::ordered_json facts = {{"prefix", prefix},
                                  {"layout", file.layout()},
                                  {"type", file.type()},
                                  {"sequences", file.sequences()},
                                  {"documents", file.documents()},
                                  {"tokens", file.tokens()},
                                  {"first_tokens", first}};
  if (every_token) facts["largest_token"] = file.largest_token();
  if (const auto notes = facts_of(info); !notes.empty()) facts["notes"] = notes;
  if (json) return print_json(facts);
  fmt::print("{}: {} layout of {}, {} documents in {} sequences, {} tokens\n", prefix, file.layout(),
             file.type(), file.documents(), file.sequences(), file.tokens());
  fmt::print("first tokens: {}\n", fmt::join(first, " "));
  if (every_token) fmt::print("largest token: {}\n", facts["largest_token"].get<std::int64_t>());
  if (info.tokenizer) fmt::print("tokenizer: {} ({} tokens)\n", *info.tokenizer, info.vocabulary.value_or(0));
  if (info.bytes) fmt::print("bytes of text: {}\n", *info.bytes);
}

void write_out(std::string_view text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size()) {
    throw Error(ExitCode::io_failed, "writing to the standard output failed");
  }
}

// std::cin takes a read that fails for the end of the input.
class StandardInput {
 public:
  bool next_line(std::string& line) {
    auto end = text_.find('\n', used_);
    while (end == text_.npos) {
      text_.erase(0, std::exchange(used_, 0));
      const auto searched = text_.size();
      if (!read_more()) break;
      end = text_.find('\n', searched);
    }
    if (end == text_.npos && used_ == text_.size()) return false;
    line = text_.substr(used_, end - used_);
    used_ = std::min(end, text_.size() - 1) + 1;
    return true;
  }
  std::string all() {
    while (read_more()) continue;
    return std::move(text_);
  }

 private:
  bool read_more() {
    constexpr std::size_t at_once = 1 << 16;
    const auto before = text_.size();
    text_.resize(before + at_once);
    ssize_t got = -1;
    do got = ::read(STDIN_FILENO, text_.data() + before, at_once);
    while (got < 0 && errno == EINTR);
    const int reason = errno;
    text_.resize(before + static_cast<std::size_t>(std::max<ssize_t>(got, 0)));
    if (got < 0) {
      throw Error(ExitCode::io_failed, fmt::format("reading the standard input failed: {}; redirect a file to it, or write "
                                                   "into a pipe",
                                                   std::strerror(reason)));
    }
    return got > 0;
  }

  std::string text_;  // used up to used_
  std::size_t used_ = 0;
};

void encode_input(const Tokenizer& tokenizer, bool whole) {
  StandardInput input;
  std::vector<std::int32_t> ids;
  const auto encode = [&](const std::string& text) {
    ids.clear();
    tokenizer.encode(text, ids);
    write_out(fmt::format("{}\n", fmt::join(ids, " ")));
  };
  if (whole) return encode(input.all());
  for (std::string line; input.next_line(line);) encode(line);
}

std::vector<std::int32_t> parse_ids(std::string_view line, std::int64_t number) {
  std::vector<std::int32_t> ids;
  const auto blank = [](char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; };
  for (;;) {
    while (!line.empty() && blank(line.front())) line.remove_prefix(1);
    if (line.empty()) return ids;
    std::int32_t id = 0;
    const auto [end, code] = std::from_chars(line.data(), line.data() + line.size(), id);
    const auto length = static_cast<std::size_t>(end - line.data());
    if (code != std::errc() || (length < line.size() && !blank(line[length]))) {
      throw Error(ExitCode::bad_data, fmt::format("line {}: \"{}\" does not begin with the number of a token",
                                                  number, shortened(std::string(line), 20)));
    }
    ids.push_back(id);
    line.remove_prefix(length);
  }
}

void decode_input(const Tokenizer& tokenizer, bool whole) {
  StandardInput input;
  if (whole) return write_out(tokenizer.decode(parse_ids(input.all(), 1)));
  std::int64_t number = 0;
  for (std::string line; input.next_line(line);)
    write_out(tokenizer.decode(parse_ids(line, ++number)) + '\n');
}

constexpr std::int64_t most_threads = 4096;

void add_prepare(CLI::App& data) {
  const auto settings = std::make_shared<PrepareSettings>();
  const auto json = std::make_shared<bool>(false);
  auto* command = data.add_subcommand("prepare", "text to a token file that training reads");
  command
      ->add_option("--input", settings->inputs,
                   "files and folders; a file is a document, of a .jsonl file each line is one, under the "
                   "key \"text\"")
      ->required();
  command->add_option("--tokenizer", settings->tokenizer, "a folder with vocab.json and merges.txt, or bytes")
      ->required();
  command
      ->add_option("--output", settings->output, "prefix: PREFIX.bin, PREFIX.idx and PREFIX.json are written")
      ->required()
      ->check(not_empty());
  command->add_option("--valid-output", settings->valid_output,
                      "prefix for validation data held back from the output");
  command->add_option(
      "--valid-share", settings->valid_share,
      "its share of the text: the end of a single document, else documents chosen by a hash of their text");
  command->add_option("--threads", settings->threads, "that encode at once; 0: one a core")
      ->check(whole_number_within(0, most_threads))
      ->type_name("N");
  command->add_flag("--json", *json, "one JSON document: documents, tokens, bytes");
  command->footer(
      "Example:\n  smlp data prepare --input books/ --tokenizer data/bpe --output data/train \\\n"
      "    --valid-output data/valid --valid-share 0.05");
  command->callback([settings, json] { run_prepare(*settings, *json); });
}

void add_trainer(CLI::App& data) {
  const auto settings = std::make_shared<TrainerSettings>();
  const auto json = std::make_shared<bool>(false);
  auto* command = data.add_subcommand("train-tokenizer", "learns byte-pair merges from text");
  command->add_option("--input", settings->inputs, "files and folders, as for `data prepare`")->required();
  command
      ->add_option("--vocabulary", settings->vocabulary,
                   "tokens in all: 256 bytes, the merges, <|endoftext|>")
      ->required()
      ->check(whole_number_within(1, largest_vocabulary))
      ->type_name("N");
  command->add_option("--output", settings->output, "folder for vocab.json and merges.txt")
      ->required()
      ->check(not_empty());
  command->add_option("--threads", settings->threads, "that count words at once; 0: one a core")
      ->check(whole_number_within(0, most_threads))
      ->type_name("N");
  command->add_flag("--json", *json, "one JSON document: vocabulary, merges, bytes");
  command->footer("Example:\n  smlp data train-tokenizer --input books/ --vocabulary 4096 --output data/bpe");
  command->callback([settings, json] { run_trainer(*settings, *json); });
}

void add_inspect(CLI::App& data) {
  struct Options {
    std::string prefix;
    bool every_token = false, json = false;
  };
  const auto options = std::make_shared<Options>();
  auto* command = data.add_subcommand("inspect", "what a token file holds");
  command->add_option("PREFIX", options->prefix, "the file's name without .bin or .idx")->required();
  command->add_flag("--every-token", options->every_token, "reads all tokens and tells the largest");
  command->add_flag("--json", options->json, "one JSON document");
  command->footer("Example:\n  smlp data inspect data/train --json");
  command->callback([options] { inspect(options->prefix, options->every_token, options->json); });
}

void add_filter(CLI::App& data, const std::string& name, const std::string& meaning,
                const std::string& example, void (*run)(const Tokenizer&, bool)) {
  struct Options {
    std::string tokenizer;
    bool whole = false;
  };
  const auto options = std::make_shared<Options>();
  auto* command = data.add_subcommand(name, meaning + ", from stdin to stdout, one line a document");
  command->add_option("--tokenizer", options->tokenizer, "a folder with vocab.json and merges.txt, or bytes")
      ->required();
  command->add_flag("--whole", options->whole, "the whole input is one document, line ends included");
  command->footer("Example:\n  " + example);
  command->callback([options, run] { run(*open_tokenizer(options->tokenizer), options->whole); });
}

}  // namespace

void add_data_commands(CLI::App& app) {
  auto* data = app.add_subcommand("data", "text to tokens and back");
  data->require_subcommand(1);
  data->footer("Example:\n  smlp data prepare --input book.txt --tokenizer bytes --output data/book");
  add_prepare(*data);
  add_trainer(*data);
  add_inspect(*data);
  add_filter(*data, "encode", "text to ids", "smlp data encode --tokenizer data/bpe < book.txt > book.ids",
             encode_input);
  add_filter(*data, "decode", "ids to text", "smlp data decode --tokenizer data/bpe < book.ids",
             decode_input);
}

}  // namespace smlp
