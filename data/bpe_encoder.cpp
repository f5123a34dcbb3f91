#include "data/bpe_encoder.h"

#include <xxhash.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <queue>

#include "core/error.h"

namespace smlp {

namespace {
constexpr std::size_t known_words = 1 << 15;
constexpr std::size_t short_word =
    100;  // beyond this many bytes a heap finds the next merge faster than a scan
constexpr auto nowhere = std::numeric_limits<std::uint32_t>::max();
}  // namespace

BpeEncoder::BpeEncoder(const MergeTable& merges, const std::array<std::int32_t, 256>& byte_ids)
    : merges_(merges), byte_ids_(byte_ids), known_(known_words) {}

void BpeEncoder::encode(std::string_view text, std::vector<std::int32_t>& append_to) {
  splitter_.start(text);
  for (std::string_view word; splitter_.next(word);) encode_word(word, append_to);
}

void BpeEncoder::encode_word(std::string_view word, std::vector<std::int32_t>& append_to) {
  if (word.size() > sizeof Known::word) {
    word.size() <= short_word ? merge_short(word, append_to) : merge_long(word, append_to);
    return;
  }
  auto& known = known_[XXH3_64bits(word.data(), word.size()) % known_words];
  if (known.bytes == word.size() && std::memcmp(known.word, word.data(), word.size()) == 0) {
    append_to.insert(append_to.end(), known.ids, known.ids + known.tokens);
    return;
  }
  const auto start = append_to.size();
  merge_short(word, append_to);
  const auto count = append_to.size() - start;
  if (count > std::size(known.ids)) return;
  known.bytes = static_cast<std::uint8_t>(word.size());
  known.tokens = static_cast<std::uint8_t>(count);
  std::memcpy(known.word, word.data(), word.size());
  std::copy_n(append_to.begin() + static_cast<std::ptrdiff_t>(start), count, known.ids);
}

void BpeEncoder::look_at(std::size_t part) {
  auto& p = parts_[part];
  if (part + 1 == parts_.size()) {
    p.rank = MergeTable::never;
    return;
  }
  const auto found = merges_.find(p.id, parts_[part + 1].id);
  p.rank = found.rank;
  p.merged = found.result;
}

void BpeEncoder::merge_short(std::string_view word, std::vector<std::int32_t>& append_to) {
  parts_.clear();
  for (const char c : word) parts_.push_back({byte_ids_[static_cast<unsigned char>(c)], 0, 0});
  for (std::size_t i = 0; i < parts_.size(); ++i) look_at(i);
  for (;;) {
    const auto best = std::min_element(parts_.begin(), parts_.end(),
                                       [](const Part& a, const Part& b) { return a.rank < b.rank; });
    if (best->rank == MergeTable::never) break;
    best->id = best->merged;
    const auto at = static_cast<std::size_t>(best - parts_.begin());
    parts_.erase(best + 1);
    look_at(at);
    if (at > 0) look_at(at - 1);
  }
  for (const auto& part : parts_) append_to.push_back(part.id);
}

// The same merges in the same order, in n log n: a word may be megabytes without a blank.
void BpeEncoder::merge_long(std::string_view word, std::vector<std::int32_t>& append_to) {
  if (word.size() >= nowhere) {
    throw Error(ExitCode::bad_data, "a word of over 4 GiB can't be encoded: this is hardly text");
  }
  struct Candidate {
    std::uint32_t rank, at;
    std::int32_t left, right, merged;
    bool operator<(const Candidate& other) const {  // the queue gives its largest first
      return rank != other.rank ? rank > other.rank : at > other.at;
    }
  };
  std::vector<Node> nodes(word.size());
  std::vector<Candidate> first;
  const auto consider = [&](std::uint32_t at, auto&& add) {
    const auto after = nodes[at].after;
    if (after == nowhere) return;
    const auto found = merges_.find(nodes[at].id, nodes[after].id);
    if (found.rank != MergeTable::never) add({found.rank, at, nodes[at].id, nodes[after].id, found.result});
  };
  const auto size = static_cast<std::uint32_t>(word.size());
  for (std::uint32_t i = 0; i < size; ++i) {
    nodes[i] = {byte_ids_[static_cast<unsigned char>(word[i])], i == 0 ? nowhere : i - 1,
                i + 1 == size ? nowhere : i + 1};
  }
  for (std::uint32_t i = 0; i < size; ++i) consider(i, [&](const Candidate& c) { first.push_back(c); });
  std::priority_queue<Candidate> queue(std::less<Candidate>(), std::move(first));
  while (!queue.empty()) {
    const auto best = queue.top();
    queue.pop();
    auto& node = nodes[best.at];
    if (node.id != best.left || node.after == nowhere || nodes[node.after].id != best.right) continue;
    auto& gone = nodes[node.after];
    node.id = best.merged;
    node.after = gone.after;
    gone.id = -1;
    if (node.after != nowhere) nodes[node.after].before = best.at;
    const auto add = [&](const Candidate& c) { queue.push(c); };
    consider(best.at, add);
    if (node.before != nowhere) consider(node.before, add);
  }
  for (std::uint32_t at = 0; at != nowhere; at = nodes[at].after) append_to.push_back(nodes[at].id);
}

}  // namespace smlp
