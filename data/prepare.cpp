#include "data/prepare.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <limits>
#include <memory>

#include "core/cores.h"
#include "core/error.h"
#include "data/ordered_work.h"
#include "data/output_lock.h"
#include "data/text_reader.h"
#include "data/token_file_writer.h"
#include "data/tokenizer.h"

namespace smlp {

namespace {

constexpr std::size_t hashed_bytes = 1 << 16;

// Pieces of documents that one thread encodes at once: many small documents or a part of a large one.
struct Part {
  std::size_t bytes = 0;
  bool last = false;   // its document ends here
  bool valid = false;  // goes to the validation file
};
struct Batch {
  std::string text;
  std::vector<Part> parts;
};
struct Encoded {
  std::vector<std::int32_t> ids;
  std::vector<std::size_t> counts;  // of ids, a part
  std::vector<Part> parts;
};

Encoded encode(const Tokenizer& tokenizer, const Batch& batch, std::int32_t end_of_text) {
  Encoded result;
  result.parts = batch.parts;
  std::string_view text = batch.text;
  for (const auto& part : batch.parts) {
    const auto before = result.ids.size();
    tokenizer.encode(text.substr(0, part.bytes), result.ids);
    if (part.last) result.ids.push_back(end_of_text);
    result.counts.push_back(result.ids.size() - before);
    text.remove_prefix(part.bytes);
  }
  return result;
}

std::vector<std::string> names_written(const std::string& prefix) {
  const auto name = std::filesystem::path(prefix).filename().string();
  return {name + ".bin", name + ".idx", name + ".lengths", name + ".json"};
}

// One output: the writer and what the notes will say.
struct Side {
  Side(std::string name, std::int64_t vocabulary)
      : prefix(std::move(name)), lock(prefix, lock_of(prefix), names_written(prefix)), writer(prefix, vocabulary) {}

  std::string prefix;
  OutputLock lock;
  TokenFileWriter writer;
  std::int64_t bytes = 0;
};

std::int64_t place_of_split(const TextFile& file, double share) {
  const auto wanted = static_cast<std::int64_t>(static_cast<double>(file.bytes) * (1 - share));
  std::ifstream stream(file.path, std::ios::binary);
  stream.seekg(wanted);
  std::string text(1 << 16, '\0');
  stream.read(text.data(), std::ssize(text));
  text.resize(static_cast<std::size_t>(stream.gcount()));
  const auto line_end = text.find('\n');
  if (line_end != text.npos && line_end + 1 < text.size())
    return wanted + static_cast<std::int64_t>(line_end) + 1;
  const auto character = std::find_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; });
  return wanted + (character - text.begin());
}

void check(const PrepareSettings& settings) {
  const bool share = settings.valid_share > 0 && settings.valid_share < 1;
  if (settings.valid_output.empty() ? settings.valid_share != 0 : !share) {
    throw Error(ExitCode::usage,
                "a validation prefix and a share above 0 and below 1 are given together or not at all");
  }
  for (const auto& prefix : {settings.output, settings.valid_output}) {
    const auto name = std::filesystem::path(prefix).filename();
    if (prefix.ends_with('/') || name == "." || name == "..") {
      throw Error(ExitCode::usage, fmt::format("{} names a folder; a prefix goes on with a name in it: {}", prefix,
                                               (std::filesystem::path(prefix) / "tokens").string()));
    }
  }
  const auto place = [](const std::string& prefix) {
    return std::filesystem::weakly_canonical(std::filesystem::absolute(prefix + ".bin"));
  };
  if (!settings.valid_output.empty() && place(settings.valid_output) == place(settings.output)) {
    throw Error(ExitCode::usage, "training and validation data need different prefixes");
  }
}

std::vector<std::string> files_of(const std::string& prefix) {
  if (prefix.empty()) return {};
  return {prefix + ".bin", prefix + ".idx", prefix + ".json"};
}

class Preparation {
 public:
  explicit Preparation(const PrepareSettings& settings)
      : settings_(settings),
        tokenizer_(open_tokenizer(settings.tokenizer)),
        end_of_text_(tokenizer_->end_of_text()),
        threads_(settings.threads > 0 ? settings.threads : threads_here()),
        train_(settings.output, tokenizer_->vocabulary()),
        work_(threads_) {
    if (!settings.valid_output.empty()) {
      valid_ = std::make_unique<Side>(settings.valid_output, tokenizer_->vocabulary());
    }
  }

  PrepareResult run(std::vector<TextFile> files);

 private:
  bool goes_to_validation(const TextPiece& piece, std::int64_t documents_before) const;
  void add(TextPiece& piece);
  void hand_out();
  void write(const Encoded& encoded);
  void report(std::int64_t bytes_read, std::int64_t bytes_in_all) const;
  TokenFileInfo publish(Side& side) const;

  const PrepareSettings& settings_;
  std::unique_ptr<Tokenizer> tokenizer_;
  std::int32_t end_of_text_;
  std::int64_t threads_;
  Side train_;
  std::unique_ptr<Side> valid_;
  bool one_document_ = false, in_validation_ = false;
  std::int64_t documents_ = 0;
  Batch batch_;
  OrderedWork<Encoded> work_;
};

bool Preparation::goes_to_validation(const TextPiece& piece, std::int64_t documents_before) const {
  if (!valid_) return false;
  if (one_document_) return documents_before == 1;
  const auto hash = XXH3_64bits(piece.text.data(), std::min(piece.text.size(), hashed_bytes));
  return static_cast<double>(hash) < settings_.valid_share * 0x1p64;
}

PrepareResult Preparation::run(std::vector<TextFile> files) {
  std::int64_t bytes_in_all = 0;
  for (const auto& file : files) bytes_in_all += file.bytes;
  one_document_ = valid_ && files.size() == 1 && !files[0].path.ends_with(".jsonl");
  const auto split = one_document_ ? place_of_split(files[0], settings_.valid_share) : -1;
  TextReader reader(
      std::move(files), [this](std::string_view text) { return tokenizer_->safe_cut(text); },
      settings_.piece_bytes);
  reader.split_at(split);
  for (TextPiece piece; reader.next(piece);) {
    add(piece);
    while (std::ssize(work_) > 2 * threads_) write(work_.take());
    report(reader.bytes_read(), bytes_in_all);
  }
  hand_out();
  while (work_.size() > 0) write(work_.take());
  report(bytes_in_all, bytes_in_all);

  const auto empty = [](const Side& side) { return side.writer.documents() == 0; };
  if (empty(train_) && !(valid_ && !empty(*valid_))) {
    throw Error(ExitCode::configuration,
                fmt::format("there is no text in {}", fmt::join(settings_.inputs, ", ")));
  }
  if (valid_ && (empty(*valid_) || empty(train_))) {
    throw Error(
        ExitCode::configuration,
        fmt::format(
            "a share of {} leaves no document for {}: prepare some files for it by a command of their own",
            settings_.valid_share, empty(*valid_) ? "validation" : "training"));
  }
  PrepareResult result;
  result.train = publish(train_);
  if (valid_) result.valid = publish(*valid_);
  return result;
}

void Preparation::add(TextPiece& piece) {
  if (piece.first) in_validation_ = goes_to_validation(piece, documents_);
  if (piece.last) ++documents_;
  batch_.text += piece.text;
  batch_.parts.push_back({piece.text.size(), piece.last, in_validation_});
  if (std::ssize(batch_.text) >= settings_.piece_bytes) hand_out();
}

void Preparation::hand_out() {
  if (batch_.parts.empty()) return;
  auto batch = std::make_shared<Batch>(std::move(batch_));
  batch_ = {};
  work_.give([this, batch] { return encode(*tokenizer_, *batch, end_of_text_); });
}

void Preparation::write(const Encoded& encoded) {
  std::span<const std::int32_t> ids = encoded.ids;
  for (std::size_t i = 0; i < encoded.parts.size(); ++i) {
    const auto& part = encoded.parts[i];
    auto& side = part.valid ? *valid_ : train_;
    side.writer.append(ids.first(encoded.counts[i]));
    side.bytes += static_cast<std::int64_t>(part.bytes);
    if (part.last) side.writer.end_document();
    ids = ids.subspan(encoded.counts[i]);
  }
}

void Preparation::report(std::int64_t bytes_read, std::int64_t bytes_in_all) const {
  if (settings_.stop && settings_.stop()) {
    throw Error(ExitCode::call_again, "stopped on request: no token file was written");
  }
  if (!settings_.progress) return;
  const auto& train = train_.writer;
  settings_.progress({bytes_read, bytes_in_all, train.documents() + (valid_ ? valid_->writer.documents() : 0),
                      train.tokens() + (valid_ ? valid_->writer.tokens() : 0)});
}

TokenFileInfo Preparation::publish(Side& side) const {
  TokenFileInfo info;
  info.tokenizer = settings_.tokenizer;
  info.fingerprint = tokenizer_->fingerprint();
  info.vocabulary = tokenizer_->vocabulary();
  info.documents = side.writer.documents();
  info.tokens = side.writer.tokens();
  info.bytes = side.bytes;
  std::error_code ignored;
  std::filesystem::remove(side.prefix + ".json", ignored);  // older notes must not lie beside new tokens
  side.writer.finish();
  write_info(side.prefix, info);
  return info;
}

}  // namespace

PrepareResult prepare(const PrepareSettings& settings) {
  check(settings);
  auto ignored = files_of(settings.output);
  for (auto& path : files_of(settings.valid_output)) ignored.push_back(std::move(path));
  auto files = find_text(settings.inputs, ignored);
  return Preparation(settings).run(std::move(files));
}

}  // namespace smlp
