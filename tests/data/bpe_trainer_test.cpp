#include "data/bpe_trainer.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <random>
#include <thread>

#include "data/learn_merges.h"
#include "tests/data/tiny_tokenizer.h"

namespace smlp::test {
namespace {

// By the definition: count every pair in every word anew, merge the best everywhere, repeat.
std::vector<Merge> by_definition(const std::vector<WordCount>& words, std::size_t tokens) {
  std::map<std::string, std::int32_t> ids;
  for (const auto byte : bytes_in_alphabet_order())
    ids.emplace(std::string(1, static_cast<char>(byte)), ids.size());
  std::vector<std::string> names(256);
  for (const auto& [name, id] : ids) names[static_cast<std::size_t>(id)] = name;
  std::vector<std::vector<std::int32_t>> parts;
  for (const auto& word : words) {
    parts.emplace_back();
    for (const char c : word.word) parts.back().push_back(ids.at(std::string(1, c)));
  }
  std::vector<Merge> merges;
  while (names.size() < tokens) {
    std::map<std::pair<std::int32_t, std::int32_t>, std::int64_t> counts;
    for (std::size_t w = 0; w < words.size(); ++w) {
      for (std::size_t i = 0; i + 1 < parts[w].size(); ++i)
        counts[{parts[w][i], parts[w][i + 1]}] += words[w].count;
    }
    const auto best = std::max_element(counts.begin(), counts.end(),
                                       [](const auto& a, const auto& b) { return a.second < b.second; });
    if (best == counts.end() || best->second < 2) break;
    const auto [left, right] = best->first;
    const auto name = names[static_cast<std::size_t>(left)] + names[static_cast<std::size_t>(right)];
    const auto [entry, fresh] = ids.emplace(name, static_cast<std::int32_t>(names.size()));
    if (fresh) names.push_back(name);
    merges.push_back({left, right, entry->second});
    for (auto& part : parts) {
      std::vector<std::int32_t> merged;
      for (std::size_t i = 0; i < part.size(); ++i) {
        const bool here = i + 1 < part.size() && part[i] == left && part[i + 1] == right;
        merged.push_back(here ? entry->second : part[i]);
        i += here ? 1 : 0;
      }
      part = merged;
    }
  }
  return merges;
}

std::vector<std::string> lines(const std::vector<Merge>& merges) {
  std::vector<std::string> text;
  for (const auto& merge : merges)
    text.push_back(fmt::format("{} {} {}", merge.left, merge.right, merge.result));
  return text;
}

TEST(LearnMerges, IsTheDefinition) {
  std::mt19937 random(6);
  for (int round = 0; round < 60; ++round) {
    std::map<std::string, std::int64_t> counted;
    for (int i = 0; i < 40; ++i) {
      std::string word;
      for (auto length = 1 + random() % 12; length > 0; --length)
        word += static_cast<char>('a' + random() % 3);
      counted[word] += static_cast<std::int64_t>(1 + random() % 4);
    }
    std::vector<WordCount> words;
    for (const auto& [word, count] : counted) words.push_back({word, count});
    const auto learned =
        learn_merges(words, 256 + 1 + static_cast<std::int64_t>(random() % 60), [](std::int64_t) {});
    ASSERT_EQ(lines(learned.merges), lines(by_definition(words, learned.tokens.size())));
  }
}

TEST(LearnMerges, PrefersTheSmallerPairAmongEquals) {
  const auto learned = learn_merges({{"cd", 5}, {"ab", 5}, {"xy", 6}}, 259, [](std::int64_t) {});
  ASSERT_EQ(learned.tokens.size(), 259u);
  EXPECT_EQ(learned.tokens[256], "xy");
  EXPECT_EQ(learned.tokens[257], "ab");
  EXPECT_EQ(learned.tokens[258], "cd");
}

std::string some_text(int words) {
  std::mt19937 random(9);
  std::string text;
  for (int i = 0; i < words; ++i) {
    text += i % 17 == 0 ? "\n" : " ";
    for (auto length = 1 + random() % 7; length > 0; --length)
      text += "etaoinshr"[random() % (1 + random() % 9)];
    if (random() % 50 == 0) text += "\xff";
  }
  return text;
}

TEST(TrainTokenizer, WritesWhatTheTokenizerReads) {
  const Scratch scratch;
  const auto text = some_text(20000);
  write_file(scratch / "in/a.txt", text);
  write_file(scratch / "in/b.jsonl", "{\"text\": \"some more\"}\n{\"text\": \"some more\"}\n");
  std::vector<TrainerProgress> seen;
  const auto result =
      train_tokenizer({.inputs = {scratch / "in"},
                       .vocabulary = 600,
                       .output = scratch / "new/bpe",
                       .progress = [&](const TrainerProgress& progress) { seen.push_back(progress); }});
  EXPECT_EQ(result.vocabulary, 600);
  EXPECT_EQ(result.merges, 600 - 257);
  const auto tokenizer = open_tokenizer(scratch / "new/bpe");
  EXPECT_EQ(tokenizer->vocabulary(), 600);
  EXPECT_EQ(tokenizer->end_of_text(), 599);
  const auto ids = encode(*tokenizer, text);
  EXPECT_EQ(tokenizer->decode(ids), text);
  EXPECT_LT(ids.size(), text.size() / 2);
  EXPECT_EQ(seen.back().bytes_read, seen.back().bytes_in_all);
  EXPECT_EQ(seen.back().vocabulary, 599);  // before the last merge
  // Again, into the folder of the text: its own older files are no text.
  const auto before = read_file(scratch / "new/bpe/merges.txt");
  std::filesystem::copy(scratch / "new/bpe", scratch / "in");
  train_tokenizer({.inputs = {scratch / "in"}, .vocabulary = 600, .output = scratch / "in"});
  EXPECT_EQ(read_file(scratch / "in/merges.txt"), before);
}

TEST(TrainTokenizer, IsTheSameWithAnyNumberOfThreads) {
  const Scratch scratch;
  for (int file = 0; file < 5; ++file)
    write_file(scratch / fmt::format("in/{}", file), some_text(100000 + file));
  for (const int threads : {1, 2, 5}) {
    train_tokenizer(
        {.inputs = {scratch / "in"}, .vocabulary = 400, .output = scratch / "t", .threads = threads});
    write_file(scratch / fmt::format("{}", threads),
               read_file(scratch / "t/merges.txt") + read_file(scratch / "t/vocab.json"));
  }
  EXPECT_EQ(read_file(scratch / "1"), read_file(scratch / "2"));
  EXPECT_EQ(read_file(scratch / "1"), read_file(scratch / "5"));
}

TEST(TrainTokenizer, EndsWhereTheTextHasNothingMore) {
  const Scratch scratch;
  write_file(scratch / "in.txt", "aa aa bb");
  const auto result =
      train_tokenizer({.inputs = {scratch / "in.txt"}, .vocabulary = 5000, .output = scratch / "t"});
  EXPECT_EQ(result.merges, 1);  // "a a" occurs twice; then every pair once
  EXPECT_EQ(result.vocabulary, 257 + result.merges);
  EXPECT_EQ(open_tokenizer(scratch / "t")->vocabulary(), result.vocabulary);
}

TEST(TrainTokenizer, TakesLongWordsInItsStride) {
  const Scratch scratch;
  const std::string dashes(3 << 20, '-'), crosses(3 << 20, 'x');
  write_file(scratch / "in.txt", dashes + " text " + crosses);
  const auto result =
      train_tokenizer({.inputs = {scratch / "in.txt"}, .vocabulary = 500, .output = scratch / "t"});
  EXPECT_GT(result.merges, 10);
}

TEST(TrainTokenizer, RefusesWhatCannotWork) {
  const Scratch scratch;
  write_file(scratch / "in.txt", "text");
  const auto said = [&](ExitCode code, const TrainerSettings& settings) {
    return refusal(code, [&] { train_tokenizer(settings); });
  };
  EXPECT_TRUE(contains(
      said(ExitCode::usage, {.inputs = {scratch / "in.txt"}, .vocabulary = 256, .output = scratch / "t"}),
      "257 tokens at least"));
  EXPECT_TRUE(contains(
      said(ExitCode::usage, {.inputs = {scratch / "in.txt"}, .vocabulary = 1 << 30, .output = scratch / "t"}),
      "16777216 at most"));
  write_file(scratch / "empty.txt", "");
  EXPECT_TRUE(contains(said(ExitCode::configuration,
                            {.inputs = {scratch / "empty.txt"}, .vocabulary = 300, .output = scratch / "t"}),
                       "no text"));
  EXPECT_TRUE(contains(said(ExitCode::call_again, {.inputs = {scratch / "in.txt"},
                                                   .vocabulary = 300,
                                                   .output = scratch / "t",
                                                   .stop = [] { return true; }}),
                       "no tokenizer was written"));
  EXPECT_FALSE(std::filesystem::exists(scratch / "t"));
}

}  // namespace
}  // namespace smlp::test
