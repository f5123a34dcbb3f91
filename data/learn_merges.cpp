#include "data/learn_merges.h"

#include <algorithm>
#include <array>
#include <queue>
#include <unordered_map>

#include "core/error.h"
#include "data/byte_alphabet.h"

namespace smlp {

namespace {

constexpr std::int64_t least_count = 2;  // a pair that occurs once teaches nothing

using Pair = std::uint64_t;  // left id above, right id below: ordered like (left, right)
Pair make_pair(std::int32_t left, std::int32_t right) {
  return static_cast<Pair>(static_cast<std::uint32_t>(left)) << 32 | static_cast<std::uint32_t>(right);
}

struct MixBits {
  std::size_t operator()(Pair pair) const { return (pair ^ pair >> 29) * 0x9E3779B97F4A7C15; }
};

class Learner {
 public:
  explicit Learner(const std::vector<WordCount>& words);
  bool best(Pair& pair);  // the most frequent one left; false when none occurs often enough
  void merge(Pair pair, std::int32_t result);

 private:
  struct Word {
    std::size_t start, length;  // in symbols_; shrinks with every merge
    std::int64_t count;
  };
  struct Statistics {
    std::int64_t count = 0;
    std::vector<std::uint32_t> words;  // where it occurs or did
  };
  struct Candidate {
    std::int64_t count;
    Pair pair;
    bool operator<(const Candidate& other) const {
      return count != other.count ? count < other.count : pair > other.pair;
    }
  };

  void add(Pair pair, std::uint32_t word, std::int64_t count);
  void merge_in_word(std::uint32_t number, std::int32_t left, std::int32_t right, std::int32_t result);

  std::vector<std::int32_t> symbols_;
  std::vector<Word> words_;
  std::unordered_map<Pair, Statistics, MixBits> pairs_;
  std::priority_queue<Candidate> queue_;
  std::vector<Pair> created_;  // by the merge under way
};

Learner::Learner(const std::vector<WordCount>& words) {
  expect(words.size() < UINT32_MAX, "more distinct words than the trainer can number");
  std::array<std::int32_t, 256> ids{};
  const auto order = bytes_in_alphabet_order();
  for (std::size_t id = 0; id < 256; ++id) ids[order[id]] = static_cast<std::int32_t>(id);
  for (const auto& [word, count] : words) {
    words_.push_back({symbols_.size(), word.size(), count});
    for (const char c : word) symbols_.push_back(ids[static_cast<unsigned char>(c)]);
  }
  for (std::uint32_t number = 0; number < words_.size(); ++number) {
    const auto& word = words_[number];
    for (std::size_t i = word.start; i + 1 < word.start + word.length; ++i) {
      add(make_pair(symbols_[i], symbols_[i + 1]), number, word.count);
    }
  }
  for (const auto& [pair, statistics] : pairs_) queue_.push({statistics.count, pair});
}

void Learner::add(Pair pair, std::uint32_t word, std::int64_t count) {
  auto& statistics = pairs_[pair];
  statistics.count += count;
  if (statistics.words.empty() || statistics.words.back() != word) statistics.words.push_back(word);
}

bool Learner::best(Pair& pair) {
  while (!queue_.empty()) {
    const auto top = queue_.top();
    queue_.pop();
    const auto found = pairs_.find(top.pair);
    if (found == pairs_.end()) continue;     // merged already
    if (found->second.count != top.count) {  // it lost some since it was queued
      if (found->second.count >= least_count) queue_.push({found->second.count, top.pair});
      continue;
    }
    pair = top.pair;
    return top.count >= least_count;
  }
  return false;
}

void Learner::merge(Pair pair, std::int32_t result) {
  const auto words = std::move(pairs_.at(pair).words);
  created_.clear();
  for (const auto word : words) {
    merge_in_word(word, static_cast<std::int32_t>(pair >> 32), static_cast<std::int32_t>(pair & 0xFFFFFFFF),
                  result);
  }
  pairs_.erase(pair);
  std::sort(created_.begin(), created_.end());
  created_.erase(std::unique(created_.begin(), created_.end()), created_.end());
  for (const auto& neighbour : created_) {
    if (const auto found = pairs_.find(neighbour); found != pairs_.end())
      queue_.push({found->second.count, neighbour});
  }
}

void Learner::merge_in_word(std::uint32_t number, std::int32_t left, std::int32_t right,
                            std::int32_t result) {
  auto& word = words_[number];
  std::int32_t* const symbols = symbols_.data() + word.start;
  const auto gain = [&](std::int32_t a, std::int32_t b) {
    created_.push_back(make_pair(a, b));
    add(created_.back(), number, word.count);
  };
  const auto lose = [&](std::int32_t a, std::int32_t b) { pairs_[make_pair(a, b)].count -= word.count; };
  std::size_t kept = 0;
  for (std::size_t i = 0; i < word.length;) {
    if (i + 1 == word.length || symbols[i] != left || symbols[i + 1] != right) {
      symbols[kept++] = symbols[i++];
      continue;
    }
    if (kept > 0) {
      lose(symbols[kept - 1], left);
      gain(symbols[kept - 1], result);
    }
    if (i + 2 < word.length) {
      lose(right, symbols[i + 2]);
      gain(result, symbols[i + 2]);
    }
    symbols[kept++] = result;
    i += 2;
  }
  word.length = kept;
}

}  // namespace

LearnedMerges learn_merges(const std::vector<WordCount>& words, std::int64_t tokens,
                           const std::function<void(std::int64_t)>& between) {
  LearnedMerges learned;
  std::unordered_map<std::string, std::int32_t> ids;
  for (const auto byte : bytes_in_alphabet_order()) {
    learned.tokens.emplace_back(1, static_cast<char>(byte));
    ids.emplace(learned.tokens.back(), static_cast<std::int32_t>(ids.size()));
  }
  Learner learner(words);
  for (Pair pair = 0; std::ssize(learned.tokens) < tokens;) {
    between(std::ssize(learned.tokens));
    if (!learner.best(pair)) break;
    const auto left = static_cast<std::int32_t>(pair >> 32),
               right = static_cast<std::int32_t>(pair & 0xFFFFFFFF);
    auto token =
        learned.tokens[static_cast<std::size_t>(left)] + learned.tokens[static_cast<std::size_t>(right)];
    // Two ways to the same letters give one token.
    const auto [entry, fresh] = ids.emplace(token, static_cast<std::int32_t>(learned.tokens.size()));
    if (fresh) learned.tokens.push_back(std::move(token));
    learned.merges.push_back({left, right, entry->second});
    learner.merge(pair, entry->second);
  }
  return learned;
}

}  // namespace smlp
