#include "data/word_counts.h"

#include <algorithm>
#include <memory>
#include <mutex>
#include <unordered_map>

#include "data/ordered_work.h"
#include "data/word_splitter.h"

namespace smlp {

namespace {

constexpr std::size_t longest_word = 256;
constexpr std::int64_t batch_bytes = 1 << 20;

struct Hash {
  using is_transparent = void;
  std::size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
};
using Counts = std::unordered_map<std::string, std::int64_t, Hash, std::equal_to<>>;

struct Counter {
  void add(std::string_view text) {
    splitter.start(text);
    for (std::string_view word; splitter.next(word);) {
      for (; word.size() > longest_word; word.remove_prefix(longest_word))
        count(word.substr(0, longest_word));
      count(word);
    }
  }
  void count(std::string_view word) {
    const auto found = counts.find(word);
    if (found != counts.end())
      ++found->second;
    else
      counts.emplace(word, 1);
  }

  WordSplitter splitter;
  Counts counts;
};

// Hands each piece of work a counter that no other one uses meanwhile.
class CounterPool {
 public:
  std::unique_ptr<Counter> take() {
    const std::lock_guard guard(mutex_);
    if (idle_.empty()) return std::make_unique<Counter>();
    auto counter = std::move(idle_.back());
    idle_.pop_back();
    return counter;
  }
  void give_back(std::unique_ptr<Counter> counter) {
    const std::lock_guard guard(mutex_);
    idle_.push_back(std::move(counter));
  }
  Counts collect() {  // when no work is under way
    Counts all;
    for (auto& counter : idle_) {
      if (all.empty())
        all.swap(counter->counts);
      else
        for (const auto& [word, count] : counter->counts) all[word] += count;
      counter.reset();
    }
    return all;
  }

 private:
  std::mutex mutex_;
  std::vector<std::unique_ptr<Counter>> idle_;
};

}  // namespace

std::vector<WordCount> count_words(const std::vector<TextFile>& files, std::int64_t threads,
                                   const std::function<void(std::int64_t)>& between) {
  CounterPool pool;
  TextReader reader(files, WordSplitter::safe_cut);
  auto texts = std::make_shared<std::vector<std::string>>();
  std::int64_t gathered = 0;
  {
    OrderedWork<bool> work(threads);
    const auto hand_out = [&] {
      work.give([&pool, texts] {
        auto counter = pool.take();
        for (const auto& text : *texts) counter->add(text);
        pool.give_back(std::move(counter));
        return true;
      });
      texts = std::make_shared<std::vector<std::string>>();
      gathered = 0;
    };
    for (TextPiece piece; reader.next(piece);) {
      gathered += std::ssize(piece.text);
      texts->push_back(std::move(piece.text));
      if (gathered >= batch_bytes) hand_out();
      while (std::ssize(work) > 2 * threads) work.take();
      between(reader.bytes_read());
    }
    if (gathered > 0) hand_out();
    while (work.size() > 0) work.take();
  }
  std::vector<WordCount> words;
  for (auto& [word, count] : pool.collect()) words.push_back({word, count});
  std::sort(words.begin(), words.end(),
            [](const WordCount& a, const WordCount& b) { return a.word < b.word; });
  return words;
}

}  // namespace smlp
