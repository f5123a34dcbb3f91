#include "data/word_splitter.h"

#include <random>
#include <string>
#include <vector>

#include "tests/data/scratch.h"

namespace smlp::test {
namespace {

using Words = std::vector<std::string>;

Words split(std::string_view text) {
  static WordSplitter splitter;  // compiling the pattern takes longer than these texts
  splitter.start(text);
  Words words;
  for (std::string_view word; splitter.next(word);) words.emplace_back(word);
  return words;
}

TEST(WordSplitter, FollowsTheReferencePattern) {
  EXPECT_EQ(split("Hello, world!"), (Words{"Hello", ",", " world", "!"}));
  EXPECT_EQ(split("I've you'll we're HE'LL 'tis it's"),
            (Words{"I", "'ve", " you", "'ll", " we", "'re", " HE", "'", "LL", " '", "tis", " it", "'s"}));
  EXPECT_EQ(split("a  b\n\n  d \t"), (Words{"a", " ", " b", "\n\n ", " d", " \t"}));
  EXPECT_EQ(split("x1y22 33.5!? "), (Words{"x", "1", "y", "22", " 33", ".", "5", "!?", " "}));
  EXPECT_EQ(split("na\xc3\xafve \xc2\xbd\xd9\xa3"), (Words{"na\xc3\xafve", " \xc2\xbd\xd9\xa3"}));
  EXPECT_EQ(split(""), Words{});
}

TEST(WordSplitter, HasTheClassesOfUnicode16) {
  // U+A7CB, U+A7DA, U+11F02, U+2EBF0 and U+323AF are letters since Unicode 15, 15.1 or 16; U+1CCF0 and
  // U+11BF0 numbers.
  for (const std::string letter :
       {"\xea\x9f\x8b", "\xea\x9f\x9a", "\xf0\x91\xbc\x82", "\xf0\xae\xaf\xb0", "\xf0\xb2\x8e\xaf"}) {
    EXPECT_EQ(split("a" + letter + "b!"), (Words{"a" + letter + "b", "!"}));
  }
  for (const std::string number : {"\xf0\x9c\xb3\xb0", "\xf0\x91\xaf\xb0"}) {
    EXPECT_EQ(split("1" + number + "2a"), (Words{"1" + number + "2", "a"}));
  }
  // White space is White_Space: U+0085, U+00A0, U+3000, not U+180E or U+200B.
  EXPECT_EQ(split("x\xc2\x85\xc2\xa0\xe3\x80\x80y"), (Words{"x", "\xc2\x85\xc2\xa0", "\xe3\x80\x80", "y"}));
  EXPECT_EQ(split("x\xe1\xa0\x8e\xe2\x80\x8b!y"), (Words{"x", "\xe1\xa0\x8e\xe2\x80\x8b!", "y"}));
}

TEST(WordSplitter, MakesWordsOfInvalidBytes) {
  EXPECT_EQ(split("ab\xff\xfe cd"), (Words{"ab", "\xff", "\xfe", " cd"}));
  EXPECT_EQ(split("ab  \xc3"), (Words{"ab", "  ", "\xc3"}));                      // a character cut short
  EXPECT_EQ(split("\xc0\xaf"), (Words{"\xc0", "\xaf"}));                          // overlong
  EXPECT_EQ(split("\xe0\x80\xaf"), (Words{"\xe0", "\x80", "\xaf"}));              // overlong
  EXPECT_EQ(split("\xed\xa0\x80x"), (Words{"\xed", "\xa0", "\x80", "x"}));        // a surrogate
  EXPECT_EQ(split("\xf4\x90\x80\x80"), (Words{"\xf4", "\x90", "\x80", "\x80"}));  // above U+10FFFF
  EXPECT_EQ(split("\xf0\x8f\xbf\xbf"), (Words{"\xf0", "\x8f", "\xbf", "\xbf"}));  // overlong
  EXPECT_EQ(split("\xf0\x9f\x98\x80"), (Words{"\xf0\x9f\x98\x80"}));
}

// Text of all kinds of pieces that the pattern and UTF-8 can trip over.
std::string random_text(std::mt19937& random, int pieces) {
  static const Words parts = {"a",
                              "bc",
                              "1",
                              "23",
                              " ",
                              "  ",
                              "\n",
                              "\r\n",
                              "\t",
                              "'s",
                              "'",
                              "'l",
                              "l",
                              "!",
                              "?!",
                              "\xc3\xa9",
                              "\xc2\xa0",
                              "\xc2\x85",
                              "\xe2\x80\x8a",
                              "\xe3\x80\x80",
                              "\xe6\x97\xa5",
                              "\xf0\x9f\x98\x80",
                              "\xff",
                              "\xc3",
                              "\xe2\x80",
                              "\xa0",
                              "\x85",
                              std::string(1, '\0')};
  std::string text;
  for (int i = 0; i < pieces; ++i) text += parts[random() % parts.size()];
  return text;
}

TEST(WordSplitter, CutsSafelyWhereItSays) {
  std::mt19937 random(11);
  int cuts = 0;
  for (int round = 0; round < 20000; ++round) {
    const auto text = random_text(random, 1 + static_cast<int>(random() % 30));
    const auto visible = 1 + random() % text.size();
    const auto cut = WordSplitter::safe_cut(std::string_view(text).substr(0, visible));
    ASSERT_LT(cut, visible);
    if (cut == 0) continue;
    ++cuts;
    auto words = split(std::string_view(text).substr(0, cut));
    for (auto& word : split(std::string_view(text).substr(cut))) words.push_back(word);
    ASSERT_EQ(words, split(text)) << "cut at " << cut << " of: " << text;
  }
  EXPECT_GT(cuts, 10000);
  EXPECT_EQ(WordSplitter::safe_cut("one two three"), 7u);
  EXPECT_EQ(WordSplitter::safe_cut("abc"), 0u);
  EXPECT_EQ(WordSplitter::safe_cut("abc.de"), 3u);
  EXPECT_EQ(WordSplitter::safe_cut(""), 0u);
}

TEST(WordSplitter, LosesNothing) {
  std::mt19937 random(12);
  for (int round = 0; round < 2000; ++round) {
    const auto text = random_text(random, static_cast<int>(random() % 200));
    std::string together;
    for (const auto& word : split(text)) {
      ASSERT_FALSE(word.empty());
      together += word;
    }
    ASSERT_EQ(together, text);
  }
}

}  // namespace
}  // namespace smlp::test
