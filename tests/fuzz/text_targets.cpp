#include <algorithm>

#include "data/text_reader.h"
#include "data/token_file.h"
#include "data/token_index.h"
#include "data/tokenizer.h"
#include "tests/fuzz/inputs.h"
#include "tests/fuzz/targets.h"

namespace smlp::fuzz {

namespace {

bool spelled_as_itself(int byte) { return (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174; }

// A byte as GPT-2's files spell it; docs/data_format.md.
std::string spelled(int byte) {
  int code = byte;
  if (!spelled_as_itself(byte)) {
    code = 256;
    for (int other = 0; other < byte; ++other) code += !spelled_as_itself(other);
  }
  if (code < 0x80) return std::string(1, static_cast<char>(code));
  return {static_cast<char>(0xC0 | code >> 6), static_cast<char>(0x80 | (code & 0x3F))};
}

// GPT-2's two files of a small tokenizer: every byte, and merges that meet in words, blanks, digits and accents.
struct BpeFiles {
  std::string vocabulary, merges;
};

BpeFiles small_bpe() {
  const std::string blank = spelled(' ');
  const std::vector<std::pair<std::string, std::string>> merges = {
      {"h", "e"}, {"t", "he"}, {blank, "the"}, {"a", "a"}, {"aa", "aa"}, {blank, blank}, {"1", "2"},
      {spelled(0xC3), spelled(0xA9)}, {"'", "s"}, {"aa", "a"}, {"aaaa", "aa"}};
  BpeFiles files{"{", "#version: 0.2\n"};
  int id = 0;
  const auto add = [&](const std::string& spelling) {
    const bool escaped = spelling == "\"" || spelling == "\\";
    files.vocabulary += std::string(id == 0 ? "" : ",") + "\"" + (escaped ? "\\" : "") + spelling + "\":" + std::to_string(id);
    ++id;
  };
  for (int byte = 0; byte < 256; ++byte) add(spelled(byte));
  for (const auto& [left, right] : merges) {
    add(left + right);
    files.merges += left + " " + right + "\n";
  }
  add(std::string(end_of_text_name));
  files.vocabulary += "}";
  return files;
}

std::unique_ptr<Tokenizer> open_bpe(const std::string& name, const BpeFiles& files) {
  const auto path = folder() / name;
  put(path / "vocab.json", files.vocabulary);
  put(path / "merges.txt", files.merges);
  return open_tokenizer(path.string());
}

const Tokenizer& small_tokenizer() {
  static const auto made = open_bpe("small", small_bpe());
  return *made;
}

void check_text(const Tokenizer& tokenizer, const std::string& text) {
  std::vector<std::int32_t> whole, pieces;
  tokenizer.encode(text, whole);
  must(tokenizer.decode(whole) == text, "decode(encode(text)) is the text");
  const std::string_view view = text;
  const std::size_t cut = tokenizer.safe_cut(text);
  tokenizer.encode(view.substr(0, cut), pieces);
  tokenizer.encode(view.substr(cut), pieces);
  must(pieces == whole, "a text that is cut where it may be has the same tokens");
}

void text(std::string_view bytes) {
  static const auto single = open_tokenizer("bytes");
  check_text(*single, std::string(bytes));
  check_text(small_tokenizer(), std::string(bytes));
}

// vocab.json, merges.txt, and a text.
void bpe_files(std::string_view bytes) {
  const auto parts = parts_of(bytes);
  const auto tokenizer = open_bpe("bpe", {parts[0], part(parts, 1)});
  check_text(*tokenizer, part(parts, 2));
  tokenizer->end_of_text();
}

// A plain text and JSON lines, in pieces so small that all borders are met.
void text_files(std::string_view bytes) {
  const auto parts = parts_of(bytes);
  const auto path = folder() / "texts";
  put(path / "a.txt", parts[0]);
  put(path / "b.jsonl", part(parts, 1));
  TextReader reader(find_text({path.string()}), [](std::string_view t) { return small_tokenizer().safe_cut(t); }, 16);
  std::vector<std::string> documents;
  TextPiece piece;
  bool inside = false;
  while (reader.next(piece)) {
    must(piece.first != inside, "a document begins where none is open");
    if (piece.first) documents.emplace_back();
    documents.back() += piece.text;
    inside = !piece.last;
  }
  must(!inside, "every document ends");
  if (!parts[0].empty()) must(documents.at(0) == parts[0], "the pieces of a document are the document");
}

// An index, after a byte that says how many bytes of tokens there are.
void token_index(std::string_view bytes) {
  if (bytes.empty()) return;
  const auto count = static_cast<unsigned char>(bytes[0]);
  const TokenIndex index = read_token_index(std::as_bytes(std::span(bytes.substr(1))), count, "tokens.idx");
  must(index.tokens * bytes_per_token(index.type) == count, "index and tokens fit together");
}

// Index, tokens, and notes.
void token_file(std::string_view bytes) {
  const auto parts = parts_of(bytes);
  const std::string prefix = folder() / "tokens";
  put(prefix + ".idx", parts[0]);
  put(prefix + ".bin", part(parts, 1));
  put(prefix + ".json", parts.size() > 2 ? parts[2] : "{}");
  const TokenFile file(prefix);
  std::vector<std::int32_t> tokens(static_cast<std::size_t>(file.tokens()));
  file.read(0, tokens);
  must(tokens.empty() || file.largest_token() == *std::max_element(tokens.begin(), tokens.end()), "largest_token()");
}

template <class... Numbers>
std::string little_endian(Numbers... numbers) {
  std::string bytes;
  (bytes.append(reinterpret_cast<const char*>(&numbers), sizeof numbers), ...);
  return bytes;
}

// Two sequences, {1, 2, 3} and {4, 5}, of two documents, as Megatron writes them: u16.
const std::string tokens = little_endian(std::int16_t{1}, std::int16_t{2}, std::int16_t{3}, std::int16_t{4}, std::int16_t{5});
std::string index_of_tokens() {
  return std::string("MMIDIDX\0\0", 9) + little_endian(std::int64_t{1}, std::int8_t{8}, std::int64_t{2}, std::int64_t{3}) +
         little_endian(std::int32_t{3}, std::int32_t{2}, std::int64_t{0}, std::int64_t{6}) +
         little_endian(std::int64_t{0}, std::int64_t{1}, std::int64_t{2});
}

}  // namespace

std::vector<Target> text_targets() {
  const BpeFiles bpe = small_bpe();
  return {{"text", text, {"the caf\xC3\xA9's  12 \n aaaaaaa", "\xE2\x80\xA8 \xFF the\xC3"}},
          {"bpe_files", bpe_files, {joined({bpe.vocabulary, bpe.merges, "the aaa"})}},
          {"text_files", text_files,
           {joined({"some text\nand more of it", "{\"text\": \"one\"}\n{\"text\": \"\"}\n{\"text\":\"two \\u00e9\"}"})}},
          {"token_index", token_index, {"\x0A" + index_of_tokens()}},
          {"token_file", token_file,
           {joined({index_of_tokens(), tokens}),
            joined({index_of_tokens(), tokens, "{\"tokenizer\": \"bytes\", \"vocabulary\": 257, \"documents\": 2}"})}}};
}

}  // namespace smlp::fuzz
