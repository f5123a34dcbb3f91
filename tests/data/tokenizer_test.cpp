#include "data/tokenizer.h"

#include <algorithm>
#include <random>
#include <thread>

#include "tests/data/tiny_tokenizer.h"

namespace smlp::test {
namespace {

using Ids = std::vector<std::int32_t>;

std::string all_bytes() {
  std::string text;
  for (int i = 0; i < 256; ++i) text += static_cast<char>(i);
  return text;
}

TEST(ByteTokenizer, GivesBytes) {
  const auto tokenizer = open_tokenizer("bytes");
  EXPECT_EQ(tokenizer->vocabulary(), 257);
  EXPECT_EQ(tokenizer->end_of_text(), 256);
  EXPECT_EQ(encode(*tokenizer, "a\xff!"), (Ids{97, 255, 33}));
  EXPECT_EQ(tokenizer->decode(encode(*tokenizer, all_bytes())), all_bytes());
  EXPECT_EQ(tokenizer->decode(Ids{97, 256, 98}), "a<|endoftext|>b");
  EXPECT_TRUE(contains(refusal(ExitCode::bad_data, [&] { tokenizer->decode(Ids{257}); }), "no token 257"));
  EXPECT_TRUE(contains(refusal(ExitCode::bad_data, [&] { tokenizer->decode(Ids{-1}); }), "no token -1"));
}

TEST(ByteAlphabet, IsGpt2s) {
  EXPECT_EQ(spell_bytes(" a\n"),
            "\xc4\xa0"
            "a"
            "\xc4\x8a");
  EXPECT_EQ(read_spelling("\xc4\xa0"
                          "a"),
            " a");
  EXPECT_EQ(read_spelling(spell_bytes(all_bytes())), all_bytes());
  EXPECT_EQ(read_spelling("a b"), std::nullopt);           // a blank is no character of the alphabet
  EXPECT_EQ(read_spelling("\xe6\x97\xa5"), std::nullopt);  // nor is U+65E5
  EXPECT_EQ(read_spelling("\xc4"), std::nullopt);
}

// By the definition: while some pair is a merge, join the leftmost pair of the lowest rank.
Ids by_definition(const MergeList& merges, const std::string& word) {
  std::vector<std::string> parts;
  for (const char c : word) parts.emplace_back(1, c);
  for (;;) {
    std::size_t best = merges.size(), at = 0;
    for (std::size_t i = 0; i + 1 < parts.size(); ++i) {
      const auto found = std::find(merges.begin(), merges.end(), std::pair(parts[i], parts[i + 1]));
      const auto rank = static_cast<std::size_t>(found - merges.begin());
      if (rank < best) best = rank, at = i;
    }
    if (best == merges.size()) break;
    parts[at] += parts[at + 1];
    parts.erase(parts.begin() + static_cast<std::ptrdiff_t>(at) + 1);
  }
  const auto ids = tiny_vocabulary(merges);
  Ids result;
  for (const auto& part : parts) result.push_back(ids.at(part));
  return result;
}

TEST(BpeTokenizer, MergesByRankThenFromTheLeft) {
  const Scratch scratch;
  const MergeList merges = {{"a", "b"}, {"b", "c"}, {"ab", "c"}, {"a", "a"}, {"aa", "aa"}, {" ", "ab"}};
  write_tiny_tokenizer(scratch / "t", merges);
  const auto tokenizer = open_tokenizer(scratch / "t");
  EXPECT_EQ(tokenizer->vocabulary(), 263);
  EXPECT_EQ(tokenizer->end_of_text(), 262);
  EXPECT_EQ(encode(*tokenizer, "abc"), (Ids{258}));
  EXPECT_EQ(encode(*tokenizer, "bcab"), (Ids{257, 256}));
  EXPECT_EQ(encode(*tokenizer, "aaaaa"), (Ids{260, 64}));  // "a" is the 65th of GPT-2's alphabet
  EXPECT_EQ(encode(*tokenizer, "ab ab  ab"), (Ids{256, 261, 220, 261}));
  EXPECT_EQ(tokenizer->decode(Ids{256, 262, 261}), "ab<|endoftext|> ab");
}

TEST(BpeTokenizer, IsTheDefinitionForWordsOfAnyLength) {
  const Scratch scratch;
  std::mt19937 random(2);
  for (int round = 0; round < 12; ++round) {
    // Merges in any order: later ones may be needed by earlier ones, as in no trained file.
    MergeList merges;
    std::vector<std::string> tokens = {"a", "b", "c", "d"};
    while (merges.size() < 30) {
      const auto left = tokens[random() % tokens.size()], right = tokens[random() % tokens.size()];
      if (left.size() + right.size() > 9 ||
          std::find(tokens.begin(), tokens.end(), left + right) != tokens.end())
        continue;
      merges.emplace_back(left, right);
      tokens.push_back(left + right);
    }
    std::shuffle(merges.begin(), merges.end(), random);
    write_tiny_tokenizer(scratch / "t", merges);
    const auto tokenizer = open_tokenizer(scratch / "t");
    for (const std::size_t length : {1, 2, 5, 17, 29, 30, 31, 32, 99, 100, 101, 102, 300, 700}) {
      std::string word;
      while (word.size() < length) word += static_cast<char>('a' + random() % 4);
      ASSERT_EQ(encode(*tokenizer, word), by_definition(merges, word)) << word;
      ASSERT_EQ(encode(*tokenizer, word), by_definition(merges, word)) << "remembered: " << word;
    }
  }
}

TEST(BpeTokenizer, ServesSeveralThreads) {
  const Scratch scratch;
  write_tiny_tokenizer(scratch / "t", {{"a", "b"}, {"ab", "c"}, {" ", "abc"}});
  const auto tokenizer = open_tokenizer(scratch / "t");
  std::string text;
  for (int i = 0; i < 3000; ++i) text += "abc ab " + std::to_string(i) + "\xff";
  const auto expected = encode(*tokenizer, text);
  std::vector<std::jthread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int j = 0; j < 5; ++j) EXPECT_EQ(encode(*tokenizer, text), expected);
    });
  }
}

TEST(BpeTokenizer, EncodesHugeWordsInTime) {
  const Scratch scratch;
  write_tiny_tokenizer(scratch / "t", {{"a", "a"}, {"aa", "aa"}, {"a", "b"}});
  const auto tokenizer = open_tokenizer(scratch / "t");
  EXPECT_EQ(encode(*tokenizer, std::string(1 << 20, 'a')).size(), std::size_t{1} << 18);
  for (const std::string unit : {"ab", " ", "=-", "\xe6\x97\xa5", "\xff"}) {
    std::string text;
    while (text.size() < (1 << 20)) text += unit;
    EXPECT_EQ(tokenizer->decode(encode(*tokenizer, text)), text);
  }
}

TEST(BpeTokenizer, SaysWhatIsWrongWithItsFiles) {
  const Scratch scratch;
  const auto folder = scratch / "t";
  const auto said = [&](const std::string& file, const std::string& contents) {
    write_tiny_tokenizer(folder, {{"a", "b"}});
    write_file(folder + "/" + file, contents);
    return refusal(ExitCode::bad_data, [&] { open_tokenizer(folder); });
  };
  EXPECT_TRUE(contains(said("vocab.json", "{\n\"a\": 0,\n?"), "line 3"));
  EXPECT_TRUE(contains(said("vocab.json", ""), "no JSON"));
  EXPECT_TRUE(contains(said("vocab.json", "[1, 2]"), "object"));
  EXPECT_TRUE(contains(said("vocab.json", "{}"), "object"));
  EXPECT_TRUE(contains(said("vocab.json", "{\"a\": -1}"), "id of \"a\" is -1"));
  EXPECT_TRUE(contains(said("vocab.json", "{\"a\": 1.5}"), "1.5"));
  EXPECT_TRUE(contains(said("vocab.json", "{\"a\": 1e30}"), "id of"));
  EXPECT_TRUE(contains(said("vocab.json", "{\"a\": 99999999999}"), "99999999999"));
  EXPECT_TRUE(contains(said("vocab.json", "{\"a\": \"x\"}"), "id of"));
  EXPECT_TRUE(contains(said("vocab.json", "{\"a\": 1, \"b\": 1}"), "both have id 1"));
  EXPECT_TRUE(contains(said("vocab.json", "{\"\": 1}"), "empty token"));
  EXPECT_TRUE(contains(said("vocab.json", "{\"a\": 1}"), "has no token"));
  EXPECT_TRUE(contains(said("merges.txt", "#version: 0.2\na b\nab\n"), "line 3 is not two tokens"));
  EXPECT_TRUE(contains(said("merges.txt", "a b c\n"), "line 1 is not"));
  EXPECT_TRUE(contains(said("merges.txt", "a \n"), "line 1 is not"));
  EXPECT_TRUE(contains(said("merges.txt", " a\n"), "line 1 is not"));
  EXPECT_TRUE(contains(said("merges.txt", "a b\n\nab q"), "line 3 needs the token \"abq\""));
  EXPECT_TRUE(contains(said("merges.txt", "a b\na b\n"), "line 2 has the pair"));
  EXPECT_TRUE(contains(said("merges.txt", all_bytes()), "line 1"));

  std::filesystem::remove(folder + "/merges.txt");
  EXPECT_TRUE(
      contains(refusal(ExitCode::configuration, [&] { open_tokenizer(folder); }), "merges.txt is missing"));
  EXPECT_TRUE(contains(refusal(ExitCode::configuration, [&] { open_tokenizer(scratch / "none"); }),
                       "train-tokenizer"));

  write_tiny_tokenizer(folder, {});
  auto vocabulary = read_file(folder + "/vocab.json");
  vocabulary.replace(vocabulary.find("<|endoftext|>"), 13, "<|end|>");
  write_file(folder + "/vocab.json", vocabulary);
  const auto tokenizer = open_tokenizer(folder);
  EXPECT_EQ(encode(*tokenizer, "a"), (Ids{64}));
  EXPECT_TRUE(contains(refusal(ExitCode::bad_data, [&] { tokenizer->end_of_text(); }), "<|endoftext|>"));
}

// Each was said to lie outside of the ids that there are: "there is no token 300: the tokenizer has 0 to 400".
// It was "there is no tokenizer", after which nobody tries again.
TEST(BpeTokenizer, ThatCantBeLookedAtIsNotMissing) {
  const Scratch scratch;
  std::filesystem::create_symlink("vocab.json", scratch / "vocab.json");
  refusal(ExitCode::io_failed, [&] { open_tokenizer(scratch / ""); });
}

TEST(BpeTokenizer, TellsWhichIdsItSkips) {
  const Scratch scratch;
  write_tiny_tokenizer(scratch / "t", {{"a", "b"}});
  auto vocabulary = nlohmann::json::parse(read_file(scratch / "t/vocab.json"));
  vocabulary[std::string(end_of_text_name)] = 400;
  write_file(scratch / "t/vocab.json", vocabulary.dump());
  const auto tokenizer = open_tokenizer(scratch / "t");
  EXPECT_EQ(tokenizer->vocabulary(), 401);
  EXPECT_TRUE(tokenizer->has(0) && tokenizer->has(256) && tokenizer->has(400));
  EXPECT_FALSE(tokenizer->has(-1) || tokenizer->has(257) || tokenizer->has(399) || tokenizer->has(401));
  EXPECT_TRUE(contains(refusal(ExitCode::bad_data, [&] { tokenizer->decode(Ids{300}); }),
                       "there is no token 300: the ids of " + (scratch / "t") + "/vocab.json skip it"));
  EXPECT_TRUE(contains(refusal(ExitCode::bad_data, [&] { tokenizer->decode(Ids{401}); }), "has 0 to 400"));
  EXPECT_FALSE(open_tokenizer("bytes")->has(257));
}

// The sentence once held all of the value, and ended the program where that was nested deeply.
TEST(BpeTokenizer, NamesAWrongIdShortly) {
  const Scratch scratch;
  const auto said = [&](const std::string& token, const std::string& id) {
    write_tiny_tokenizer(scratch / "t", {});
    write_file(scratch / "t/vocab.json", "{\"" + token + "\": " + id + "}");
    return refusal(ExitCode::bad_data, [&] { open_tokenizer(scratch / "t"); });
  };
  EXPECT_TRUE(contains(said("a", std::string(200000, '[') + std::string(200000, ']')), "the id of \"a\" is an array instead"));
  EXPECT_TRUE(contains(said("a", "{\"b\": [1]}"), "is an object instead"));
  EXPECT_TRUE(contains(said("a\\nb", "[7]"), "the id of \"a\\nb\" is [7] instead")) << "on one line";
  EXPECT_LT(said(std::string(5000, 'x'), '"' + std::string(5000, 'y') + '"').size(), 300u);
}

// The mark stood in the message as an invisible part of a token that vocab.json lacks.
TEST(BpeTokenizer, TakesFilesOfAnEditorThatPutsAByteOrderMarkInFront) {
  const Scratch scratch;
  write_tiny_tokenizer(scratch / "t", {{"a", "b"}});
  for (const std::string name : {"vocab.json", "merges.txt"}) {
    write_file(scratch / ("t/" + name), "\xef\xbb\xbf" + read_file(scratch / ("t/" + name)));
  }
  EXPECT_EQ(encode(*open_tokenizer(scratch / "t"), "ab"), (Ids{256}));
}

TEST(BpeTokenizer, SurvivesAnyDamage) {
  const Scratch scratch;
  write_tiny_tokenizer(scratch / "t", {{"a", "b"}, {"ab", "c"}});
  const auto vocabulary = read_file(scratch / "t/vocab.json"), merges = read_file(scratch / "t/merges.txt");
  std::mt19937 random(4);
  for (int round = 0; round < 600; ++round) {
    auto v = vocabulary, m = merges;
    auto& victim = random() % 2 == 0 ? v : m;
    for (unsigned change = 0; change <= random() % 3; ++change) {
      if (random() % 3 == 0) victim.resize(random() % (victim.size() + 1));
      if (!victim.empty()) victim[random() % victim.size()] = static_cast<char>(random());
    }
    write_file(scratch / "t/vocab.json", v);
    write_file(scratch / "t/merges.txt", m);
    try {
      const auto tokenizer = open_tokenizer(scratch / "t");
      EXPECT_EQ(tokenizer->decode(encode(*tokenizer, "abc ab " + all_bytes())), "abc ab " + all_bytes());
    } catch (const Error& error) {
      EXPECT_EQ(static_cast<int>(error.code()), static_cast<int>(ExitCode::bad_data)) << error.what();
    }
  }
}

TEST(BpeTokenizer, HasAFingerprintOfItsContents) {
  const Scratch scratch;
  write_tiny_tokenizer(scratch / "a", {{"a", "b"}, {"b", "c"}});
  write_tiny_tokenizer(scratch / "b", {{"a", "b"}, {"b", "c"}});
  write_tiny_tokenizer(scratch / "c", {{"b", "c"}, {"a", "b"}});
  const auto print = [&](const char* name) { return open_tokenizer(scratch / name)->fingerprint(); };
  EXPECT_EQ(print("a").size(), 32u);
  EXPECT_EQ(print("a"), print("b"));
  EXPECT_NE(print("a"), print("c"));
}

// Ids of the reference (Hugging Face tokenizers 0.23.3 on the same two files; scripts/compare_tokenizer.py
// compares whole texts).
TEST(BpeTokenizer, GivesTheIdsOfTheReferenceOnGpt2sFiles) {
  const auto data = shared_data();
  if (data.empty()) GTEST_SKIP() << "no shared data here (SMLP_SHARED_DATA names it)";
  const auto tokenizer = open_tokenizer((data / "gpt2-bpe").string());
  EXPECT_EQ(tokenizer->vocabulary(), 50257);
  EXPECT_EQ(tokenizer->end_of_text(), 50256);
  const std::vector<std::pair<std::string, Ids>> vectors = {
      {"Hello, world!", {15496, 11, 995, 0}},
      {"The quick brown fox jumps over the lazy dog.",
       {464, 2068, 7586, 21831, 18045, 625, 262, 16931, 3290, 13}},
      {"<|endoftext|>", {27, 91, 437, 1659, 5239, 91, 29}},
      {"I've you'll we're HE'LL it's 'tis",
       {40, 1053, 345, 1183, 356, 821, 11179, 6, 3069, 340, 338, 705, 48010}},
      {"a  b   c    \n\n  d \t", {64, 220, 275, 220, 220, 269, 220, 220, 220, 220, 628, 220, 288, 220, 197}},
      {"  leading", {220, 3756}},
      {"trailing  ", {9535, 4386, 220, 220}},
      {"\r\n\r\nx", {201, 198, 201, 198, 87}},
      {"Zo\xc3\xab na\xc3\xafve caf\xc3\xa9", {57, 78, 26689, 41492, 40304}},
      {"\xe6\x97\xa5\xe6\x9c\xac\xe8\xaa\x9e\xe3\x81\xae\xe3\x83\x86\xe3\x82\xad\xe3\x82\xb9\xe3\x83\x88",
       {33768, 98, 17312, 105, 45739, 252, 5641, 24336, 25084, 43302}},
      {"1234567890 3.14 \xc2\xbd\xd9\xa3", {10163, 2231, 30924, 3829, 513, 13, 1415, 25208, 149, 96}},
      {"x\xe1\xa0\x8ey x\xc2\x85y x\xc2\xa0\xc2\xa0y\xe3\x80\x80z",
       {87, 157, 254, 236, 88, 2124, 126, 227, 88, 2124, 1849, 1849, 88, 5099, 222, 89}},
      {"=-=-=-=-=-=-=-=-=-=-=-=-=-=-=-=-=-=-=-=-=-=-=-=-=-=-=-=-=-=-=-=-=-=-=-=-=-=-=-=-=-=-=-=-=-=-=-=-=-=-="
       "-=-=-=-=-",
       {46402, 46402, 46402, 46402, 46402, 46402, 27584, 16822, 10779}},
      {std::string("\0\x01\x1f\x7f", 4), {188, 189, 219, 221}},
  };
  for (const auto& [text, ids] : vectors) {
    EXPECT_EQ(encode(*tokenizer, text), ids) << text;
    EXPECT_EQ(tokenizer->decode(ids), text);
  }
}

TEST(BpeTokenizer, ReturnsEveryByte) {
  const auto data = shared_data();
  if (data.empty()) GTEST_SKIP() << "no shared data here (SMLP_SHARED_DATA names it)";
  const bool everything = std::getenv("SMLP_WHOLE_TEXTS") != nullptr;
  const auto gpt2 = open_tokenizer((data / "gpt2-bpe").string()), bytes = open_tokenizer("bytes");
  std::mt19937 random(8);
  for (const auto& entry : std::filesystem::recursive_directory_iterator(data)) {
    if (!entry.is_regular_file()) continue;
    auto text = read_file(entry.path().string());
    if (!everything && text.size() > (1 << 20))
      text = text.substr(text.size() / 2 + random() % 1000, 1 << 20);
    ASSERT_EQ(gpt2->decode(encode(*gpt2, text)), text) << entry.path();
    ASSERT_EQ(bytes->decode(encode(*bytes, text)), text) << entry.path();
    // The same with its UTF-8 broken here and there.
    for (std::size_t i = random() % 50; i < text.size(); i += 1 + random() % 1000)
      text[i] = static_cast<char>(random());
    ASSERT_EQ(gpt2->decode(encode(*gpt2, text)), text) << entry.path();
  }
  std::string noise(300000, '\0');
  for (auto& c : noise) c = static_cast<char>(random());
  EXPECT_EQ(gpt2->decode(encode(*gpt2, noise)), noise);
}

}  // namespace
}  // namespace smlp::test
