#include "data/token_file.h"

#include <sys/stat.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <vector>

#include "data/token_file_writer.h"
#include "tests/data/scratch.h"

namespace smlp::test {
namespace {

const std::string fixture_tokens = from_hex("050006000700080009000a00");
const std::string fairseq_index = from_hex(
    "4d4d494449445800000100000000000000080300000000000000030000000200000001000000"
    "000000000000000006000000000000000a00000000000000");
const std::string megatron_index = from_hex(
    "4d4d4944494458000001000000000000000803000000000000000300000000000000030000000200000001000000"
    "000000000000000006000000000000000a00000000000000000000000000000002000000000000000300000000000000");

void put(const Scratch& scratch, const std::string& index, const std::string& tokens) {
  write_file(scratch / "t.idx", index);
  write_file(scratch / "t.bin", tokens);
}

std::vector<std::int32_t> all(const TokenFile& file) {
  std::vector<std::int32_t> tokens(static_cast<std::size_t>(file.tokens()));
  file.read(0, tokens);
  return tokens;
}

template <class T>
std::string bytes_of(T value) {
  return std::string(reinterpret_cast<const char*>(&value), sizeof value);
}

std::string with(std::string bytes, std::size_t offset, const std::string& patch) {
  return bytes.replace(offset, patch.size(), patch);
}

std::string sentence(const std::string& index, const std::string& tokens = fixture_tokens) {
  const Scratch scratch;
  put(scratch, index, tokens);
  return refusal(ExitCode::bad_data, [&] { TokenFile file(scratch / "t"); });
}

TEST(TokenFile, ReadsTheFixtureOfFairseq) {
  const Scratch scratch;
  put(scratch, fairseq_index, fixture_tokens);
  const TokenFile file(scratch / "t");
  EXPECT_STREQ(file.layout(), "fairseq");
  EXPECT_STREQ(file.type(), "u16");
  EXPECT_EQ(file.sequences(), 3);
  EXPECT_EQ(file.documents(), 1);  // the last sequence, of one token, ends it
  EXPECT_EQ(all(file), (std::vector<std::int32_t>{5, 6, 7, 8, 9, 10}));
  EXPECT_EQ(file.largest_token(), 10);
  std::vector<std::int32_t> middle(3);
  file.read(2, middle);
  EXPECT_EQ(middle, (std::vector<std::int32_t>{7, 8, 9}));
}

TEST(TokenFile, ReadsTheFixtureOfMegatronWithAndWithoutModes) {
  const Scratch scratch;
  for (const std::string modes : {"", "\x01\x02\x03"}) {
    put(scratch, megatron_index + modes, fixture_tokens);
    const TokenFile file(scratch / "t");
    EXPECT_STREQ(file.layout(), "megatron");
    EXPECT_EQ(file.sequences(), 3);
    EXPECT_EQ(file.documents(), 2);
    EXPECT_EQ(all(file), (std::vector<std::int32_t>{5, 6, 7, 8, 9, 10}));
  }
}

template <class T>
void check_type(std::uint8_t code, const char* name, bool fairseq_only = false) {
  const Scratch scratch;
  const std::vector<std::int32_t> tokens = {0, 1, 127, 42, 7, 99};
  std::string bin;
  for (const auto token : tokens) bin += bytes_of(static_cast<T>(token));
  for (const bool fairseq : {true, false}) {
    auto index = with(fairseq ? fairseq_index : megatron_index, 17, bytes_of(code));
    const std::size_t pointers = (fairseq ? 26 : 34) + 12;
    index = with(index, pointers,
                 bytes_of<std::int64_t>(0) + bytes_of<std::int64_t>(3 * sizeof(T)) +
                     bytes_of<std::int64_t>(5 * sizeof(T)));
    put(scratch, index, bin);
    if (fairseq_only && !fairseq) {
      EXPECT_TRUE(contains(refusal(ExitCode::bad_data, [&] { TokenFile file(scratch / "t"); }), "unknown"));
      continue;
    }
    const TokenFile file(scratch / "t");
    EXPECT_STREQ(file.type(), name);
    EXPECT_EQ(all(file), tokens) << name;
  }
}

TEST(TokenFile, ReadsEveryIntegerTypeOfBothLayouts) {
  check_type<std::uint8_t>(1, "u8");
  check_type<std::int8_t>(2, "i8");
  check_type<std::int16_t>(3, "i16");
  check_type<std::int32_t>(4, "i32");
  check_type<std::int64_t>(5, "i64");
  check_type<std::uint16_t>(8, "u16");
  check_type<std::uint32_t>(9, "u32", true);
  check_type<std::uint64_t>(10, "u64", true);
}

TEST(TokenFile, RefusesTokensThatNoVocabularyHas) {
  const Scratch scratch;
  const auto one = [&](std::uint8_t code, const std::string& token) {
    auto index = with(fairseq_index.substr(0, 26), 17, bytes_of(code));
    index =
        with(index, 18, bytes_of<std::int64_t>(1)) + bytes_of<std::int32_t>(2) + bytes_of<std::int64_t>(0);
    put(scratch, index, token + std::string(token.size(), '\0'));  // a good token after it
    const TokenFile file(scratch / "t");
    return refusal(ExitCode::bad_data, [&] { all(file); });
  };
  EXPECT_TRUE(contains(one(3, bytes_of<std::int16_t>(-1)), "negative"));
  EXPECT_TRUE(contains(one(4, bytes_of<std::int32_t>(-5)), "negative"));
  EXPECT_TRUE(contains(one(5, bytes_of<std::int64_t>(std::int64_t{1} << 31)), "above"));
  EXPECT_TRUE(contains(one(9, bytes_of<std::uint32_t>(0xFFFFFFFFu)), "above"));
  EXPECT_TRUE(contains(one(10, bytes_of<std::uint64_t>(~std::uint64_t{0})), "above"));
}

// A bit flipped in .bin once reached the embedding, which stopped the rank as a defect of ours.
TEST(TokenFile, RefusesATokenAboveTheVocabularyOfItsNotes) {
  const Scratch scratch;
  put(scratch, megatron_index, fixture_tokens);
  write_file(scratch / "t.json", "{\"vocabulary\": 11}");
  EXPECT_EQ(all(TokenFile(scratch / "t")).back(), 10);
  put(scratch, megatron_index, with(fixture_tokens, 4, bytes_of<std::uint16_t>(11)));
  const TokenFile file(scratch / "t");
  std::vector<std::int32_t> part(2);
  file.read(0, part);  // the damage lies behind these
  EXPECT_TRUE(contains(refusal(ExitCode::bad_data, [&] { file.read(1, part); }),
                       "holds token 11 between tokens 1 and 3"));
  std::filesystem::remove(scratch / "t.json");
  EXPECT_EQ(TokenFile(scratch / "t").largest_token(), 11);
}

// A number that is none was cut to one: a vocabulary of 11.5 was 11, one of 4e114 whatever the processor made of it.
TEST(TokenFile, RefusesNotesWhoseNumbersAreNotWhole) {
  const Scratch scratch;
  put(scratch, megatron_index, fixture_tokens);
  for (const std::string value : {"11.5", "4e+114", "18446744073709551615", "true", "-11", "[11]"}) {
    write_file(scratch / "t.json", "{\"vocabulary\": " + value + "}");
    const auto words = refusal(ExitCode::bad_data, [&] { TokenFile(scratch / "t"); });
    EXPECT_TRUE(contains(words, "t.json is damaged")) << value << ": " << words;
    EXPECT_TRUE(contains(words, value)) << words;
  }
}

// They were taken for notes that say nothing, of which nothing is checked.
TEST(TokenFile, RefusesNotesThatAreNoObject) {
  const Scratch scratch;
  put(scratch, megatron_index, fixture_tokens);
  for (const std::string notes : {"[]", "5", "null", "\"a\"", "[{\"vocabulary\": 11}]"}) {
    write_file(scratch / "t.json", notes);
    const auto words = refusal(ExitCode::bad_data, [&] { TokenFile(scratch / "t"); });
    EXPECT_TRUE(contains(words, "t.json is damaged (it is no JSON object)")) << words;
  }
}

// Opening one waited for somebody to write into it.
// A disk that failed for a moment made them missing, for which a run ends for good; and of notes that can't be looked at there
// are none. A link to itself can't be looked at either.
TEST(TokenFile, WhoseFilesCantBeLookedAtIsNotMissing) {
  for (const char* ending : {".bin", ".idx", ".json"}) {
    const Scratch scratch;
    put(scratch, fairseq_index, fixture_tokens);
    const auto file = scratch / ("t" + std::string(ending));
    std::filesystem::remove(file);
    std::filesystem::create_symlink(std::filesystem::path(file).filename(), file);
    const auto told = refusal(ExitCode::io_failed, [&] { TokenFile opened(scratch / "t"); });
    EXPECT_TRUE(contains(told, "looking at " + file)) << told;
  }
}

TEST(TokenFile, WaitsForNoPipe) {
  for (const char* ending : {".bin", ".idx", ".json"}) {
    const Scratch scratch;
    put(scratch, megatron_index, fixture_tokens);
    std::filesystem::remove((scratch / "t") + ending);
    ASSERT_EQ(::mkfifo(((scratch / "t") + ending).c_str(), 0600), 0);
    try {
      TokenFile(scratch / "t");
      ADD_FAILURE() << ending;
    } catch (const Error& error) {
      EXPECT_TRUE(contains(error.what(), "not an ordinary file")) << error.what();
    }
  }
}

TEST(TokenFile, RefusesBytesOfTheOtherOrder) {
  const auto reversed = [](std::string bytes, std::size_t offset, std::size_t size) {
    std::reverse(bytes.begin() + static_cast<std::ptrdiff_t>(offset),
                 bytes.begin() + static_cast<std::ptrdiff_t>(offset + size));
    return bytes;
  };
  EXPECT_TRUE(contains(sentence(reversed(megatron_index, 9, 8)), "format version 72057594037927936"));
  EXPECT_TRUE(contains(sentence(reversed(megatron_index, 18, 8)), "claims"));
}

TEST(TokenFile, ReadsEmptyDocumentsAndEmptyFiles) {
  const Scratch scratch;
  // Lengths 0, 3, 0, 3: the documents are {empty}, {3}, {}, {empty, 3}.
  std::string index = megatron_index.substr(0, 18) + bytes_of<std::int64_t>(4) + bytes_of<std::int64_t>(5);
  for (const std::int32_t length : {0, 3, 0, 3}) index += bytes_of(length);
  for (const std::int64_t pointer : {0, 0, 6, 6}) index += bytes_of(pointer);
  for (const std::int64_t boundary : {0, 1, 2, 2, 4}) index += bytes_of(boundary);
  put(scratch, index, fixture_tokens);
  const TokenFile file(scratch / "t");
  EXPECT_EQ(file.sequences(), 4);
  EXPECT_EQ(file.documents(), 4);
  EXPECT_EQ(all(file), (std::vector<std::int32_t>{5, 6, 7, 8, 9, 10}));

  put(scratch, fairseq_index.substr(0, 18) + bytes_of<std::int64_t>(0), "");
  const TokenFile none(scratch / "t");
  EXPECT_EQ(none.tokens() + none.sequences() + none.documents(), 0);
  EXPECT_TRUE(all(none).empty());
  EXPECT_EQ(none.largest_token(), 0);
}

// Offsets that fit neither an i32 nor a u32; the file is a hole but for its ends.
TEST(TokenFile, ReadsBeyondFourGigabytes) {
  const Scratch scratch;
  const std::int32_t length = (1 << 30) + 5;
  const std::int64_t tokens = std::int64_t{3} * length, bytes = 2 * tokens;
  std::string index = megatron_index.substr(0, 18) + bytes_of<std::int64_t>(3) + bytes_of<std::int64_t>(2);
  for (int i = 0; i < 3; ++i) index += bytes_of(length);
  for (std::int64_t i = 0; i < 3; ++i) index += bytes_of(2 * i * length);
  put(scratch, index + bytes_of<std::int64_t>(0) + bytes_of<std::int64_t>(3), "");
  std::filesystem::resize_file(scratch / "t.bin", static_cast<std::uintmax_t>(bytes));
  std::fstream bin(scratch / "t.bin", std::ios::binary | std::ios::in | std::ios::out);
  bin.seekp(bytes - 4) << bytes_of<std::uint16_t>(77) << bytes_of<std::uint16_t>(78);
  bin.seekp(std::int64_t{4} * length) << bytes_of<std::uint16_t>(79);
  bin.close();
  const TokenFile file(scratch / "t");
  ASSERT_EQ(file.tokens(), tokens);
  std::vector<std::int32_t> part(3);
  file.read(tokens - 3, part);
  EXPECT_EQ(part, (std::vector<std::int32_t>{0, 77, 78}));
  file.read(std::int64_t{2} * length - 1, part);
  EXPECT_EQ(part, (std::vector<std::int32_t>{0, 79, 0}));
}

TEST(TokenFile, ReadsWhatAnIndependentWriterWrote) {
  const Scratch scratch;
  write_file(scratch / "write.py", R"(
import struct
documents = [[[1, 2, 3], [4]], [[5, 6]], [[7], [8, 9, 65535]]]
def idx(code, size, megatron):
    sequences = [s for d in documents for s in d]
    pointers, at = [], 0
    for s in sequences:
        pointers.append(at)
        at += len(s) * size
    out = b"MMIDIDX\0\0" + struct.pack("<QBQ", 1, code, len(sequences))
    if megatron:
        out += struct.pack("<Q", len(documents) + 1)
    out += struct.pack("<%di" % len(sequences), *map(len, sequences)) + struct.pack("<%dq" % len(pointers), *pointers)
    if megatron:
        ends = [0]
        for d in documents:
            ends.append(ends[-1] + len(d))
        out += struct.pack("<%dq" % len(ends), *ends)
    return out
for name, code, letter, size in (("u16", 8, "H", 2), ("i32", 4, "i", 4), ("i64", 5, "q", 8)):
    for megatron in (False, True):
        prefix = name + ("-megatron" if megatron else "-fairseq")
        tokens = [t for d in documents for s in d for t in s]
        open(prefix + ".bin", "wb").write(struct.pack("<%d%s" % (len(tokens), letter), *tokens))
        open(prefix + ".idx", "wb").write(idx(code, size, megatron))
)");
  if (std::system("python3 -c '' 2> /dev/null") != 0) GTEST_SKIP() << "no python3 here";
  ASSERT_EQ(std::system(("cd '" + scratch.root().string() + "' && python3 write.py").c_str()), 0);
  for (const std::string type : {"u16", "i32", "i64"}) {
    for (const std::string layout : {"fairseq", "megatron"}) {
      const TokenFile file(scratch / (type + "-" + layout));
      EXPECT_EQ(file.layout(), layout);
      EXPECT_EQ(file.type(), type);
      EXPECT_EQ(file.sequences(), 5);
      EXPECT_EQ(file.documents(), 3);  // fairseq: a sequence of one token ends each but the last
      EXPECT_EQ(all(file), (std::vector<std::int32_t>{1, 2, 3, 4, 5, 6, 7, 8, 9, 65535}));
    }
  }
}

TEST(TokenFile, SaysWhatIsWrongWithAnIndex) {
  EXPECT_TRUE(contains(sentence(""), "empty"));
  EXPECT_TRUE(contains(sentence("TNTIDX" + std::string(100, '\0')), "legacy TNTIDX"));
  EXPECT_TRUE(contains(sentence("hello, I am a text file of some length"), "MMIDIDX"));
  EXPECT_TRUE(contains(sentence(megatron_index.substr(0, 20)), "header"));
  EXPECT_TRUE(contains(sentence(with(megatron_index, 9, "\x02")), "version 2"));
  EXPECT_TRUE(contains(sentence(megatron_index.substr(0, 80)), "cut short"));
  EXPECT_TRUE(contains(sentence(megatron_index + "x"), "neither"));
  EXPECT_TRUE(contains(sentence(with(megatron_index, 17, "\x06")), "floating-point"));
  EXPECT_TRUE(contains(sentence(with(fairseq_index, 17, "\x07")), "floating-point"));
  EXPECT_TRUE(contains(sentence(with(fairseq_index, 17, "\x0b")), "unknown"));
  for (const std::uint64_t huge :
       {~std::uint64_t{0}, std::uint64_t{1} << 63, ~std::uint64_t{0} / 12 + 1, std::uint64_t{4}}) {
    EXPECT_TRUE(contains(sentence(with(fairseq_index, 18, bytes_of(huge))), "more than its")) << huge;
  }
  for (const std::uint64_t huge :
       {~std::uint64_t{0}, std::uint64_t{1} << 61, (std::uint64_t{1} << 61) + 3, std::uint64_t{0}}) {
    EXPECT_TRUE(contains(sentence(with(megatron_index, 26, bytes_of(huge))), "neither")) << huge;
  }
  EXPECT_TRUE(contains(sentence(with(fairseq_index, 30, bytes_of<std::int32_t>(-2))), "negative length -2"));
  EXPECT_TRUE(contains(sentence(with(fairseq_index, 46, "\x07")), "starts at byte 7"));
  EXPECT_TRUE(contains(sentence(with(megatron_index, 70, "\x01")), "boundary 0"));
  EXPECT_TRUE(contains(sentence(with(megatron_index, 78, "\xff")), "boundary 2 is 3 after 255"));
  EXPECT_TRUE(contains(sentence(with(megatron_index, 86, "\x02")), "end at sequence 2 of 3"));
  EXPECT_TRUE(contains(sentence(megatron_index, fixture_tokens.substr(0, 11)), "don't belong together"));
  EXPECT_TRUE(contains(sentence(megatron_index, fixture_tokens + "xx"), "don't belong together"));
  EXPECT_TRUE(contains(sentence(megatron_index, ""), "don't belong together"));
}

TEST(TokenFile, NamesTheCommandWhenGivenText) {
  const Scratch scratch;
  write_file(scratch / "book.txt", "Once upon a time");
  const auto text = refusal(ExitCode::configuration, [&] { TokenFile file(scratch / "book.txt"); });
  EXPECT_TRUE(contains(text, "text file"));
  EXPECT_TRUE(contains(text, "smlp data prepare --input " + (scratch / "book.txt") + " --tokenizer"));
  EXPECT_TRUE(contains(text, "--output " + (scratch / "book")));
  EXPECT_TRUE(contains(refusal(ExitCode::configuration, [&] { TokenFile file(scratch / "none"); }),
                       "none.bin is missing"));
  EXPECT_TRUE(
      contains(refusal(ExitCode::configuration, [&] { TokenFile file(scratch / "x.bin"); }), "without .bin"));
  EXPECT_TRUE(
      contains(refusal(ExitCode::configuration, [&] { TokenFile file(scratch.root().string()); }), "folder"));
  put(scratch, megatron_index, fixture_tokens);
  std::filesystem::remove(scratch / "t.idx");
  EXPECT_TRUE(
      contains(refusal(ExitCode::configuration, [&] { TokenFile file(scratch / "t"); }), "t.idx is missing"));
}

// Flips, cuts and pastes: either a sentence, or a file whose every token can be read.
TEST(TokenFile, SurvivesAnyDamage) {
  const Scratch scratch;
  std::mt19937 random(7);
  const auto below = [&](std::size_t n) {
    return std::uniform_int_distribution<std::size_t>(0, n - 1)(random);
  };
  int refused = 0, read = 0;
  for (int round = 0; round < 3000; ++round) {
    std::string index = round % 2 == 0 ? fairseq_index : megatron_index, tokens = fixture_tokens;
    for (std::size_t change = 0; change <= below(3); ++change) {
      auto& victim = below(5) == 0 ? tokens : index;
      if (victim.empty()) continue;
      switch (below(4)) {
        case 0:
          victim[below(victim.size())] = static_cast<char>(below(256));
          break;
        case 1:
          victim[below(victim.size())] ^= static_cast<char>(1 << below(8));
          break;
        case 2:
          victim.resize(below(victim.size() + 1));
          break;
        default:
          victim.insert(below(victim.size()), std::string(below(12), static_cast<char>(below(2) * 255)));
      }
    }
    put(scratch, index, tokens);
    try {
      const TokenFile file(scratch / "t");
      ASSERT_GE(file.tokens(), 0);
      ASSERT_LE(file.tokens(), static_cast<std::int64_t>(tokens.size()));
      ASSERT_GE(file.documents(), 0);
      ASSERT_LE(file.documents(),
                std::max<std::int64_t>(file.sequences(), static_cast<std::int64_t>(index.size())));
      for (const auto token : all(file)) ASSERT_GE(token, 0);
      ++read;
    } catch (const Error& error) {
      ASSERT_EQ(static_cast<int>(error.code()), static_cast<int>(ExitCode::bad_data)) << error.what();
      ++refused;
    }
  }
  EXPECT_GT(refused, 1000);
  EXPECT_GT(read, 100);
}

TEST(TokenFileWriter, WritesTheBytesOfMegatron) {
  const Scratch scratch;
  TokenFileWriter writer(scratch / "deep/er/t", 50257);
  writer.append(std::vector<std::int32_t>{5, 6});
  writer.append(std::vector<std::int32_t>{7, 8, 9});
  writer.end_document();
  writer.append(std::vector<std::int32_t>{10});
  writer.end_document();
  EXPECT_FALSE(std::filesystem::exists(scratch / "deep/er/t.bin"));
  EXPECT_FALSE(std::filesystem::exists(scratch / "deep/er/t.idx"));
  writer.finish();
  EXPECT_EQ(read_file(scratch / "deep/er/t.bin"), fixture_tokens);
  EXPECT_EQ(read_file(scratch / "deep/er/t.idx"), megatron_index.substr(0, 18) + bytes_of<std::int64_t>(2) +
                                                      bytes_of<std::int64_t>(3) + bytes_of<std::int32_t>(5) +
                                                      bytes_of<std::int32_t>(1) + bytes_of<std::int64_t>(0) +
                                                      bytes_of<std::int64_t>(10) + bytes_of<std::int64_t>(0) +
                                                      bytes_of<std::int64_t>(1) + bytes_of<std::int64_t>(2));
}

TEST(TokenFileWriter, ChoosesTheTypeByTheVocabularyAndReadsBack) {
  const Scratch scratch;
  std::mt19937 random(3);
  for (const std::int64_t vocabulary : {257, 65499, 65500, 128000}) {
    std::vector<std::int32_t> written;
    TokenFileWriter writer(scratch / "t", vocabulary);
    for (int document = 0; document < 700; ++document) {
      std::vector<std::int32_t> tokens(random() % 3000);
      for (auto& token : tokens)
        token = static_cast<std::int32_t>(random() % static_cast<unsigned>(vocabulary));
      writer.append(tokens);
      writer.end_document();
      written.insert(written.end(), tokens.begin(), tokens.end());
    }
    writer.finish();
    EXPECT_EQ(scratch.files(), 2);
    const TokenFile file(scratch / "t");
    EXPECT_STREQ(file.type(), vocabulary < 65500 ? "u16" : "i32");
    EXPECT_STREQ(file.layout(), "megatron");
    EXPECT_EQ(file.documents(), 700);
    EXPECT_EQ(all(file), written);
  }
}

TEST(TokenFileWriter, LeavesTheOlderPairAloneUnlessFinished) {
  const Scratch scratch;
  put(scratch, megatron_index, fixture_tokens);
  {
    TokenFileWriter writer(scratch / "t", 300);
    writer.append(std::vector<std::int32_t>(100000, 7));
    EXPECT_GT(scratch.files(), 2);
  }
  EXPECT_EQ(scratch.files(), 2);
  EXPECT_EQ(TokenFile(scratch / "t").tokens(), 6);
  TokenFileWriter writer(scratch / "t", 300);
  EXPECT_THROW(writer.append(std::vector<std::int32_t>{300}), Error);
}

}  // namespace
}  // namespace smlp::test
