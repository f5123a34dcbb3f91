#include "data/tokenizer.h"

#include <fmt/format.h>

#include "core/error.h"
#include "data/bpe_tokenizer.h"

namespace smlp {

namespace {

class ByteTokenizer : public Tokenizer {
 public:
  void encode(std::string_view text, std::vector<std::int32_t>& append_to) const override {
    const auto* bytes = reinterpret_cast<const unsigned char*>(text.data());
    append_to.insert(append_to.end(), bytes, bytes + text.size());
  }
  std::string decode(std::span<const std::int32_t> ids) const override {
    std::string text;
    text.reserve(ids.size());
    for (const auto id : ids) {
      if (!has(id)) {
        throw Error(ExitCode::bad_data,
                    fmt::format("there is no token {}: the byte tokenizer has 0 to {}", id, end));
      }
      if (id == end)
        text += end_of_text_name;
      else
        text += static_cast<char>(id);
    }
    return text;
  }
  std::int64_t vocabulary() const override { return end + 1; }
  bool has(std::int32_t id) const override { return id >= 0 && id <= end; }
  bool has_end_of_text() const override { return true; }
  std::int32_t end_of_text() const override { return end; }
  std::size_t safe_cut(std::string_view text) const override { return text.empty() ? 0 : text.size() - 1; }
  std::string fingerprint() const override { return "bytes"; }

 private:
  static constexpr std::int32_t end = 256;
};

}  // namespace

std::unique_ptr<Tokenizer> open_tokenizer(const std::string& folder_or_bytes) {
  if (folder_or_bytes == "bytes") return std::make_unique<ByteTokenizer>();
  return open_bpe_tokenizer(folder_or_bytes);
}

void expect_tokenizer(const Tokenizer& tokenizer, const std::string& name, const std::string& fingerprint,
                      const std::string& model) {
  if (fingerprint.empty() || tokenizer.fingerprint() == fingerprint) return;
  throw Error(ExitCode::configuration,
              fmt::format("{} is another tokenizer than the one that {} was trained with, though it has its name: put that "
                          "one back there",
                          name, model));
}

}  // namespace smlp
