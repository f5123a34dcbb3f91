#include "data/bpe_tokenizer.h"

#include <fmt/format.h>

#include <filesystem>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <set>
#include <unordered_map>
#include <utility>

#include "core/digest.h"
#include "core/error.h"
#include "core/files.h"
#include "core/json_lines.h"
#include "data/bpe_encoder.h"
#include "data/byte_alphabet.h"

namespace smlp {

namespace {

constexpr std::int64_t largest_id = (1 << 24) - 1;

struct Vocabulary {
  std::unordered_map<std::string, std::int32_t> ids;
  std::vector<std::string> tokens;  // by id, as spelled; "" where there is none
};

template <class... Arguments>
[[noreturn]] void refuse(const std::string& path, fmt::format_string<Arguments...> sentence,
                         Arguments&&... arguments) {
  throw Error(ExitCode::bad_data, fmt::format("{} is not usable: {}", path,
                                              fmt::format(sentence, std::forward<Arguments>(arguments)...)));
}

Vocabulary read_vocabulary(const std::string& path) {
  nlohmann::json file;
  try {
    file = nlohmann::json::parse(read_text(path));
  } catch (const nlohmann::json::exception& error) {
    refuse(path, "it is no JSON ({})", json_fault(error));
  }
  if (!file.is_object() || file.empty()) refuse(path, "a JSON object from tokens to ids was expected");
  Vocabulary vocabulary;
  for (const auto& [token, id] : file.items()) {
    if (token.empty()) refuse(path, "it has an empty token");
    if (!id.is_number_integer() || id < 0 || id > largest_id) {
      refuse(path, "the id of {} is {} instead of a number from 0 to {}", in_words(token), in_words(id), largest_id);
    }
    const auto number = id.get<std::int32_t>();
    if (std::ssize(vocabulary.tokens) <= number)
      vocabulary.tokens.resize(static_cast<std::size_t>(number) + 1);
    auto& place = vocabulary.tokens[static_cast<std::size_t>(number)];
    if (!place.empty()) refuse(path, "{} and {} both have id {}", in_words(place), in_words(token), number);
    place = token;
    vocabulary.ids.emplace(token, number);
  }
  return vocabulary;
}

std::array<std::int32_t, 256> find_bytes(const Vocabulary& vocabulary, const std::string& path) {
  std::array<std::int32_t, 256> ids{};
  for (std::size_t byte = 0; byte < 256; ++byte) {
    const auto spelling = spell_bytes(std::string(1, static_cast<char>(byte)));
    const auto found = vocabulary.ids.find(spelling);
    if (found == vocabulary.ids.end()) {
      refuse(path, "byte {} (spelled \"{}\") has no token, so not every text could be encoded", byte,
             spelling);
    }
    ids[byte] = found->second;
  }
  return ids;
}

std::vector<Merge> read_merges(const std::string& path, const Vocabulary& vocabulary) {
  const auto text = read_text(path);
  std::vector<Merge> merges;
  std::set<std::pair<std::int32_t, std::int32_t>> seen;
  int number = 0;
  constexpr std::string_view byte_order_mark = "\xef\xbb\xbf";  // as editors on Windows put in front
  for (std::size_t start = text.starts_with(byte_order_mark) ? byte_order_mark.size() : 0; start < text.size();) {
    const auto end = std::min(text.find('\n', start), text.size());
    std::string_view line(text.data() + start, end - start);
    start = end + 1;
    ++number;
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.empty() || line.starts_with("#version")) continue;
    const auto blank = line.find(' ');
    if (blank == 0 || blank >= line.size() - 1 || line.find(' ', blank + 1) != line.npos) {
      refuse(path, "line {} is not two tokens with one blank between them", number);
    }
    const auto id = [&](std::string token) {
      const auto found = vocabulary.ids.find(token);
      if (found == vocabulary.ids.end())
        refuse(path, "line {} needs the token {}, which vocab.json lacks", number, in_words(token));
      return found->second;
    };
    const std::string left(line.substr(0, blank)), right(line.substr(blank + 1));
    merges.push_back({id(left), id(right), id(left + right)});
    if (!seen.emplace(merges.back().left, merges.back().right).second) {
      refuse(path, "line {} has the pair {} for the second time", number, in_words(line));
    }
  }
  return merges;
}

std::string fingerprint_of(const Vocabulary& vocabulary, const std::vector<Merge>& merges) {
  std::string text;
  for (const auto& token : vocabulary.tokens) text += token + '\n';
  for (const auto& merge : merges) text += fmt::format("{} {} {}\n", merge.left, merge.right, merge.result);
  return digest_of(text);
}

class BpeTokenizer : public Tokenizer {
 public:
  BpeTokenizer(std::string folder, const Vocabulary& vocabulary,
               const std::array<std::int32_t, 256>& byte_ids, const std::vector<Merge>& merges)
      : folder_(std::move(folder)),
        byte_ids_(byte_ids),
        merges_(merges),
        fingerprint_(fingerprint_of(vocabulary, merges)) {
    for (const auto& token : vocabulary.tokens) bytes_.push_back(read_spelling(token).value_or(token));
    const auto end = vocabulary.ids.find(std::string(end_of_text_name));
    if (end != vocabulary.ids.end()) end_ = end->second;
  }

  void encode(std::string_view text, std::vector<std::int32_t>& append_to) const override {
    auto encoder = borrow();
    encoder->encode(text, append_to);
    const std::lock_guard guard(mutex_);
    idle_.push_back(std::move(encoder));
  }

  std::string decode(std::span<const std::int32_t> ids) const override {
    std::string text;
    for (const auto id : ids) {
      if (!has(id)) throw Error(ExitCode::bad_data, no_token(id));
      text += bytes_[static_cast<std::size_t>(id)];
    }
    return text;
  }

  std::int64_t vocabulary() const override { return std::ssize(bytes_); }
  bool has(std::int32_t id) const override {
    return id >= 0 && id < vocabulary() && !bytes_[static_cast<std::size_t>(id)].empty();
  }
  bool has_end_of_text() const override { return end_ >= 0; }

  std::int32_t end_of_text() const override {
    if (has_end_of_text()) return end_;
    throw Error(ExitCode::bad_data,
                fmt::format("{}/vocab.json has no token {}, which must stand between documents", folder_,
                            end_of_text_name));
  }

  std::size_t safe_cut(std::string_view text) const override { return WordSplitter::safe_cut(text); }
  std::string fingerprint() const override { return fingerprint_; }

 private:
  std::string no_token(std::int32_t id) const {
    const bool skipped = id >= 0 && id < vocabulary();
    if (skipped) return fmt::format("there is no token {}: the ids of {}/vocab.json skip it", id, folder_);
    return fmt::format("there is no token {}: the tokenizer {} has 0 to {}", id, folder_, vocabulary() - 1);
  }

  std::unique_ptr<BpeEncoder> borrow() const {
    {
      const std::lock_guard guard(mutex_);
      if (!idle_.empty()) {
        auto encoder = std::move(idle_.back());
        idle_.pop_back();
        return encoder;
      }
    }
    return std::make_unique<BpeEncoder>(merges_, byte_ids_);
  }

  std::string folder_;
  std::array<std::int32_t, 256> byte_ids_;
  MergeTable merges_;
  std::string fingerprint_;
  std::vector<std::string> bytes_;  // by id
  std::int32_t end_ = -1;

  mutable std::mutex mutex_;  // guards what follows
  mutable std::vector<std::unique_ptr<BpeEncoder>> idle_;
};

}  // namespace

std::unique_ptr<Tokenizer> open_bpe_tokenizer(const std::string& folder) {
  const auto path = [&](const char* name) { return (std::filesystem::path(folder) / name).string(); };
  for (const char* name : {"vocab.json", "merges.txt"}) {
    if (kind_of_path(path(name)) != PathKind::absent) continue;
    throw Error(
        ExitCode::configuration,
        fmt::format(
            "there is no tokenizer {} ({} is missing): name a folder with vocab.json and merges.txt, or "
            "\"bytes\"; `smlp data train-tokenizer --input PATH --vocabulary N --output {}` makes one",
            folder, path(name), folder));
  }
  const auto vocabulary = read_vocabulary(path("vocab.json"));
  const auto bytes = find_bytes(vocabulary, path("vocab.json"));
  return std::make_unique<BpeTokenizer>(folder, vocabulary, bytes,
                                        read_merges(path("merges.txt"), vocabulary));
}

}  // namespace smlp
