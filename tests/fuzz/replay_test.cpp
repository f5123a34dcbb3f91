// Every target on its seeds, and on thousands of damaged ones: the same on every machine.
#include <gtest/gtest.h>

#include <cctype>
#include <cstring>
#include <random>

#include "tests/fuzz/inputs.h"
#include "tests/fuzz/targets.h"

namespace smlp::fuzz {

void PrintTo(const Target& target, std::ostream* out) { *out << target.name; }

namespace {

// Damage as it happens: a bit, a cut, a part twice, a part of another, a number that readers do not expect.
class Damage {
 public:
  std::string to(std::string bytes, const std::string& other) {
    for (std::uint32_t times = 1 + below(3); times > 0; --times) strike(bytes, other);
    return bytes;
  }

 private:
  std::uint32_t below(std::size_t end) { return end == 0 ? 0 : static_cast<std::uint32_t>(random_() % end); }

  void strike(std::string& bytes, const std::string& other) {
    static const std::string odd[] = {"-1", "1e999", "0.5", "18446744073709551615", "null", "{}", "[", "\"", "\n", "\xFF"};
    const std::size_t from = below(bytes.size() + 1), length = below(std::min<std::size_t>(bytes.size() - from, 16) + 1);
    switch (below(7)) {
      case 0:
        if (from < bytes.size()) bytes[from] = static_cast<char>(bytes[from] ^ 1 << below(8));
        return;
      case 1: bytes.resize(from); return;
      case 2: bytes.erase(from, length); return;
      case 3: bytes.insert(from, bytes.substr(from, length)); return;
      case 4: bytes.replace(from, length, odd[below(std::size(odd))]); return;
      case 5: replace_word(bytes, from, odd[below(std::size(odd))]); return;
      default: bytes.insert(from, other.substr(below(other.size() + 1), 16)); return;
    }
  }

  // The number, name or quoted name there, whole.
  static void replace_word(std::string& bytes, std::size_t at, const std::string& by) {
    const auto in_word = [](char c) { return std::isalnum(static_cast<unsigned char>(c)) || std::strchr("._-\"", c); };
    std::size_t first = at, end = at;
    while (first > 0 && in_word(bytes[first - 1])) --first;
    while (end < bytes.size() && in_word(bytes[end])) ++end;
    bytes.replace(first, end - first, by);
  }

  std::mt19937 random_{1};
};

class Fuzzed : public testing::TestWithParam<Target> {};

TEST_P(Fuzzed, ReadsItsSeedsAndRefusesDamageInSentences) {
  const Target& target = GetParam();
  for (const auto& seed : target.seeds) ASSERT_NO_THROW(target.run(seed)) << "a seed is refused:\n" << seed;
  Damage damage;
  for (int round = 0; round < 3000; ++round) {
    const auto& seed = target.seeds[static_cast<std::size_t>(round) % target.seeds.size()];
    const std::string bytes = damage.to(seed, target.seeds.back());
    ASSERT_NO_THROW(in_sentences([&] { target.run(bytes); })) << "round " << round << ":\n" << bytes;
  }
}

INSTANTIATE_TEST_SUITE_P(, Fuzzed, testing::ValuesIn(all_targets()), testing::PrintToStringParamName());

}  // namespace
}  // namespace smlp::fuzz
