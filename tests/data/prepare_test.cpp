#include "data/prepare.h"

#include <fmt/format.h>

#include <random>
#include <set>

#include "data/text_reader.h"
#include "data/token_file.h"
#include "tests/data/tiny_tokenizer.h"
#include "tests/failing_read.h"

namespace smlp::test {
namespace {

using Ids = std::vector<std::int32_t>;

Ids all(const std::string& prefix) {
  const TokenFile file(prefix);
  Ids tokens(static_cast<std::size_t>(file.tokens()));
  file.read(0, tokens);
  return tokens;
}

// Every document whole, one after the other: what prepare() must equal.
Ids whole(const Tokenizer& tokenizer, const std::vector<std::string>& documents) {
  Ids ids;
  for (const auto& document : documents) {
    tokenizer.encode(document, ids);
    ids.push_back(tokenizer.end_of_text());
  }
  return ids;
}

// Where the disk failed behind a piece, the document was taken to end there.
TEST(Prepare, ADiskThatFailsAnywhereIsNoEndOfADocument) {
  const Scratch scratch;
  constexpr std::int64_t piece = 20'000, size = 5 * piece;
  write_file(scratch / "in.txt", std::string(size, 'a'));
  for (std::int64_t from = 1; from < size; from += 1000) {  // reads of a piece end one byte behind it
    const FailingRead failing(from);
    refusal(ExitCode::io_failed, [&] {
      TextReader reader(find_text({scratch / "in.txt"}, {}), [](std::string_view text) { return text.size(); }, piece);
      for (TextPiece part; reader.next(part);) {}
    });
  }
}

TEST(Prepare, EncodesFilesFoldersAndLines) {
  const Scratch scratch;
  write_file(scratch / "in/b.txt", "second");
  write_file(scratch / "in/a/z.txt", "first");
  write_file(scratch / "in/empty.txt", "");
  write_file(scratch / "in/lines.jsonl",
             "{\"text\": \"one\\nline\"}\n\n{\"id\": 4, \"text\": \"two\"}\n{\"text\": \"\"}\n");
  write_file(scratch / "last.txt", "last \xff");
  const auto result = prepare(
      {.inputs = {scratch / "in", scratch / "last.txt"}, .tokenizer = "bytes", .output = scratch / "out/t"});
  const auto tokenizer = open_tokenizer("bytes");
  EXPECT_EQ(all(scratch / "out/t"), whole(*tokenizer, {"first", "second", "one\nline", "two", "last \xff"}));
  EXPECT_EQ(TokenFile(scratch / "out/t").documents(), 5);
  EXPECT_EQ(result.train.documents, 5);
  const auto info = read_info(scratch / "out/t");
  EXPECT_EQ(info.bytes, 5 + 6 + 8 + 3 + 6);
  EXPECT_EQ(info.tokens, *info.bytes + 5);
  EXPECT_EQ(info.documents, 5);
  EXPECT_EQ(info.vocabulary, 257);
  EXPECT_EQ(info.tokenizer, "bytes");
  EXPECT_EQ(info.fingerprint, tokenizer->fingerprint());
  // Once more into the folder of the text: what lies there of earlier runs is no text.
  prepare({.inputs = {scratch / "in"}, .tokenizer = "bytes", .output = scratch / "in/t"});
  prepare({.inputs = {scratch / "in"}, .tokenizer = "bytes", .output = scratch / "in/other"});
  EXPECT_EQ(all(scratch / "in/other"), all(scratch / "in/t"));
}

TEST(Prepare, InPiecesIsPrepareAtOnce) {
  const Scratch scratch;
  write_tiny_tokenizer(scratch / "bpe",
                       {{"a", "b"}, {" ", "ab"}, {"\n", "\n"}, {" ", " "}, {"1", "2"}, {"\xc3", "\xa9"}});
  const auto tokenizer = open_tokenizer(scratch / "bpe");
  static const std::vector<std::string> parts = {"ab",
                                                 "a",
                                                 " ",
                                                 "  ",
                                                 "\n",
                                                 "\n\n",
                                                 "\r\n",
                                                 "12",
                                                 "'s",
                                                 "'",
                                                 "!",
                                                 "\xc3\xa9",
                                                 "\xc3",
                                                 "\xff",
                                                 "\xe3\x80\x80",
                                                 "\xc2\xa0",
                                                 "long-word-without-a-blank"};
  std::mt19937 random(21);
  for (int round = 0; round < 15; ++round) {
    std::vector<std::string> documents;
    for (int document = 0; document < 7; ++document) {
      std::string text = "x";
      for (auto i = random() % 3000; i > 0; --i) text += parts[random() % parts.size()];
      write_file(scratch / fmt::format("in/{}", document), text);
      documents.push_back(text);
    }
    for (const std::int64_t piece : {1, 7, 100, 5000}) {
      prepare({.inputs = {scratch / "in"},
               .tokenizer = scratch / "bpe",
               .output = scratch / "t",
               .threads = 1 + static_cast<std::int64_t>(random() % 3),
               .piece_bytes = piece});
      ASSERT_EQ(all(scratch / "t"), whole(*tokenizer, documents)) << "pieces of " << piece;
      ASSERT_EQ(TokenFile(scratch / "t").documents(), 7);
    }
  }
}

TEST(Prepare, SplitsOneDocumentByItsEnd) {
  const Scratch scratch;
  std::string text;
  for (int i = 0; i < 1000; ++i) text += fmt::format("line {}\n", i);
  write_file(scratch / "in.txt", text);
  for (const std::int64_t piece : {64, 1 << 20}) {
    prepare({.inputs = {scratch / "in.txt"},
             .tokenizer = "bytes",
             .output = scratch / "train",
             .valid_output = scratch / "valid",
             .valid_share = 0.1,
             .piece_bytes = piece});
    const auto tokenizer = open_tokenizer("bytes");
    auto train = all(scratch / "train"), valid = all(scratch / "valid");
    ASSERT_EQ(TokenFile(scratch / "train").documents(), 1);
    ASSERT_EQ(TokenFile(scratch / "valid").documents(), 1);
    train.pop_back();
    valid.pop_back();
    EXPECT_EQ(tokenizer->decode(train) + tokenizer->decode(valid), text);
    EXPECT_EQ(tokenizer->decode(valid).substr(0, 5), "line ");
    EXPECT_NEAR(static_cast<double>(valid.size()), 0.1 * static_cast<double>(text.size()), 10);
  }
}

TEST(Prepare, SplitsManyDocumentsByTheirText) {
  const Scratch scratch;
  std::string lines;
  for (int i = 0; i < 2000; ++i) lines += fmt::format("{{\"text\": \"document {}\"}}\n", i % 1000);
  write_file(scratch / "in.jsonl", lines);
  const auto run = [&](const std::string& output) {
    return prepare({.inputs = {scratch / "in.jsonl"},
                    .tokenizer = "bytes",
                    .output = scratch / output,
                    .valid_output = scratch / (output + "-valid"),
                    .valid_share = 0.2});
  };
  const auto result = run("a");
  EXPECT_EQ(*result.train.documents + *result.valid->documents, 2000);
  EXPECT_NEAR(static_cast<double>(*result.valid->documents), 400, 60);
  EXPECT_EQ(*result.valid->documents % 2, 0);  // each text is there twice: both on one side
  run("b");
  EXPECT_EQ(all(scratch / "a-valid"), all(scratch / "b-valid"));
}

TEST(Prepare, RefusesWhatCannotWork) {
  const Scratch scratch;
  write_file(scratch / "in.txt", "some text");
  const auto said = [&](ExitCode code, const PrepareSettings& settings) {
    return refusal(code, [&] { prepare(settings); });
  };
  const auto out = scratch / "out/t";
  EXPECT_TRUE(contains(
      said(ExitCode::configuration, {.inputs = {scratch / "no"}, .tokenizer = "bytes", .output = out}),
      "no file or folder"));
  EXPECT_TRUE(contains(said(ExitCode::configuration,
                            {.inputs = {scratch / "in.txt"}, .tokenizer = scratch / "none", .output = out}),
                       "no tokenizer"));
  EXPECT_TRUE(contains(
      said(ExitCode::usage,
           {.inputs = {scratch / "in.txt"}, .tokenizer = "bytes", .output = out, .valid_share = 0.1}),
      "together"));
  EXPECT_TRUE(contains(said(ExitCode::usage, {.inputs = {scratch / "in.txt"},
                                              .tokenizer = "bytes",
                                              .output = out,
                                              .valid_output = out,
                                              .valid_share = 0.1}),
                       "different prefixes"));
  EXPECT_TRUE(contains(said(ExitCode::configuration, {.inputs = {scratch / "in.txt", scratch / "in.txt"},
                                                      .tokenizer = "bytes",
                                                      .output = out,
                                                      .valid_output = out + "v",
                                                      .valid_share = 1e-9}),
                       "no document for validation"));
  write_file(scratch / "bad.jsonl", "{\"text\": \"good\"}\n{\"txt\": \"bad\"}\n");
  EXPECT_TRUE(contains(
      said(ExitCode::bad_data, {.inputs = {scratch / "bad.jsonl"}, .tokenizer = "bytes", .output = out}),
      "line 2"));
  write_file(scratch / "bad.jsonl", "{\"text\": \"good\"}\n\n{\"text\": \"b");
  EXPECT_TRUE(contains(
      said(ExitCode::bad_data, {.inputs = {scratch / "bad.jsonl"}, .tokenizer = "bytes", .output = out}),
      "line 3"));
  write_file(scratch / "empty.txt", "");
  EXPECT_TRUE(contains(
      said(ExitCode::configuration, {.inputs = {scratch / "empty.txt"}, .tokenizer = "bytes", .output = out}),
      "no text"));
  EXPECT_TRUE(!std::filesystem::exists(scratch / "out") || std::filesystem::is_empty(scratch / "out"));
}

// "t" and "./t" were two prefixes, and validation data took the place of the training data.
TEST(Prepare, OnePrefixInTwoSpellingsIsRefused) {
  const Scratch scratch;
  write_file(scratch / "in.txt", "some text");
  for (const char* other : {"./t", "x/../t", "./x/.././t"}) {
    const auto sentence = refusal(ExitCode::usage, [&] {
      prepare({.inputs = {scratch / "in.txt"},
               .tokenizer = "bytes",
               .output = scratch / "t",
               .valid_output = scratch / other,
               .valid_share = 0.5});
    });
    EXPECT_TRUE(contains(sentence, "different prefixes")) << other << ": " << sentence;
  }
}

// Hidden files .bin and .idx were written into it; of "." and ".." those were ..bin and ...bin.
TEST(Prepare, AFolderIsNoPrefix) {
  const Scratch scratch;
  write_file(scratch / "in.txt", "some text");
  const auto sentence = refusal(ExitCode::usage, [&] {
    prepare({.inputs = {scratch / "in.txt"}, .tokenizer = "bytes", .output = scratch / "out/"});
  });
  EXPECT_TRUE(contains(sentence, "out/ names a folder")) << sentence;
  for (const std::string name : {".", "..", "/.", "out/.", "out/.."}) {
    const auto refused = refusal(ExitCode::usage, [&] {
      prepare({.inputs = {scratch / "in.txt"}, .tokenizer = "bytes", .output = name});
    });
    EXPECT_TRUE(contains(refused, name + " names a folder; a prefix goes on with a name in it: " + name + "/tokens")) << refused;
    refusal(ExitCode::usage, [&] {
      prepare({.inputs = {scratch / "in.txt"}, .tokenizer = "bytes", .output = scratch / "t", .valid_output = name,
               .valid_share = 0.5});
    });
  }
}

// One link to itself made the whole folder unreadable.
TEST(Prepare, LinksThatLeadNowhereArePassedOver) {
  const Scratch scratch;
  write_file(scratch / "in/a.txt", "some text");
  std::filesystem::create_symlink("loop", scratch / "in/loop");
  std::filesystem::create_symlink("nowhere", scratch / "in/broken");
  EXPECT_EQ(prepare({.inputs = {scratch / "in"}, .tokenizer = "bytes", .output = scratch / "t"}).train.documents, 1);
}

TEST(Prepare, LeavesNothingBehindWhenStoppedAndKeepsWhatWasThere) {
  const Scratch scratch;
  write_file(scratch / "in.txt", std::string(100000, 'x'));
  prepare({.inputs = {scratch / "in.txt"}, .tokenizer = "bytes", .output = scratch / "t"});
  const auto before = scratch.files();
  int pieces = 0;
  const auto sentence = refusal(ExitCode::call_again, [&] {
    prepare({.inputs = {scratch / "in.txt", scratch / "in.txt"},
             .tokenizer = "bytes",
             .output = scratch / "t",
             .piece_bytes = 1000,
             .stop = [&] { return ++pieces > 50; }});
  });
  EXPECT_TRUE(contains(sentence, "no token file was written"));
  EXPECT_EQ(scratch.files(), before);
  EXPECT_EQ(TokenFile(scratch / "t").tokens(), 100001);
}

TEST(Prepare, ReportsHowFarItIs) {
  const Scratch scratch;
  write_file(scratch / "in.txt", std::string(100000, 'x'));
  std::vector<PrepareProgress> seen;
  prepare({.inputs = {scratch / "in.txt"},
           .tokenizer = "bytes",
           .output = scratch / "t",
           .piece_bytes = 1000,
           .progress = [&](const PrepareProgress& progress) { seen.push_back(progress); }});
  ASSERT_GT(seen.size(), 50u);
  for (std::size_t i = 1; i < seen.size(); ++i) {
    EXPECT_GE(seen[i].bytes_read, seen[i - 1].bytes_read);
    EXPECT_GE(seen[i].tokens, seen[i - 1].tokens);
  }
  EXPECT_EQ(seen.back().bytes_read, 100000);
  EXPECT_EQ(seen.back().bytes_in_all, 100000);
  EXPECT_EQ(seen.back().tokens, 100001);
  EXPECT_EQ(seen.back().documents, 1);
}

TEST(TokenFileInfo, IsAbsentWhereAnotherProgramWroteAndRefusedWhereDamaged) {
  const Scratch scratch;
  EXPECT_FALSE(read_info(scratch / "t").bytes.has_value());
  const auto bytes = open_tokenizer("bytes");
  check_tokenizer(scratch / "t", *bytes, "bytes");
  write_info(scratch / "t", {.tokenizer = "data/bpe",
                             .fingerprint = "feed",
                             .vocabulary = {},
                             .documents = {},
                             .tokens = {},
                             .bytes = 12});
  EXPECT_EQ(read_info(scratch / "t").bytes, 12);
  EXPECT_FALSE(read_info(scratch / "t").tokens.has_value());
  const auto sentence =
      refusal(ExitCode::configuration, [&] { check_tokenizer(scratch / "t", *bytes, "bytes"); });
  EXPECT_TRUE(contains(sentence, "another tokenizer (data/bpe) than bytes"));
  write_file(scratch / "t.json", "{\"bytes\": \"many\"}");
  EXPECT_TRUE(contains(refusal(ExitCode::bad_data, [&] { read_info(scratch / "t"); }), "damaged"));
  write_file(scratch / "t.json", "{\"bytes\"");
  EXPECT_TRUE(contains(refusal(ExitCode::bad_data, [&] { read_info(scratch / "t"); }), "damaged"));
}

}  // namespace
}  // namespace smlp::test
