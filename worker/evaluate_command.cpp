#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "core/error.h"
#include "core/json_lines.h"
#include "core/json_text.h"
#include "core/quantities.h"
#include "core/tell.h"
#include "data/prepare.h"
#include "eval/perplexity.h"
#include "worker/commands.h"

namespace smlp {

namespace {

// Bytes of the text behind a token file: from the file's own notes, else by decoding it; none where it holds what the tokenizer
// has no text for, such as the ids with which a vocabulary is padded, or where there is no tokenizer.
std::optional<std::int64_t> text_bytes(const TokenFile& file, const std::string& prefix, const std::string& tokenizer_name) {
  const auto notes = read_info(prefix);
  const bool of_this_file = notes.tokens.value_or(file.tokens()) == file.tokens();
  if (!of_this_file) {
    tell("{0}.json is of another file: it says {1} tokens, and {0}.idx has {2}; the text's bytes are counted from these",
         prefix, *notes.tokens, file.tokens());
  }
  if (notes.bytes && of_this_file) return *notes.bytes;
  std::unique_ptr<Tokenizer> tokenizer;
  try {
    tokenizer = open_tokenizer(tokenizer_name);
  } catch (const Error& error) {  // it may have stayed where the model was trained
    tell("bits a byte of {0} are not known, nor is \"bytes\" in {0}.json: {1}", prefix, error.what());
    return std::nullopt;
  }
  std::int64_t bytes = 0;
  constexpr std::int64_t chunk = 1 << 16;
  for (std::int64_t first = 0; first < file.tokens(); first += chunk) {
    std::vector<std::int32_t> ids(static_cast<std::size_t>(std::min(chunk, file.tokens() - first)));
    file.read(first, ids);
    const auto foreign = std::find_if(ids.begin(), ids.end(), [&](std::int32_t id) { return !tokenizer->has(id); });
    if (foreign != ids.end()) {
      tell("bits a byte of {0} are not known: it holds token {1}, for which the tokenizer {2} has no text; \"bytes\" in {0}.json "
           "would tell how long its text is", prefix, *foreign, tokenizer_name);
      return std::nullopt;
    }
    if (tokenizer->has_end_of_text()) std::erase(ids, tokenizer->end_of_text());
    bytes += static_cast<std::int64_t>(tokenizer->decode(ids).size());
  }
  return bytes;
}

}  // namespace

void evaluate_command(const std::filesystem::path& checkpoint, const std::string& data, bool json) {
  auto model = load_model(checkpoint);
  auto& world = *model.engine->grid().world;
  const TokenFile file(data);
  const auto result = model.engine->evaluate(file, 0, [] {});
  if (world.rank() != 0) return;
  // Of a text that is predicted in part, that part of the bytes.
  const double share = static_cast<double>(result.tokens) / static_cast<double>(file.tokens() - 1);
  const double bytes = share * static_cast<double>(text_bytes(file, data, model.job.data.tokenizer).value_or(0));
  const auto bits = result.bits_per_byte(bytes);
  if (json) {
    const nlohmann::json facts = {{"loss", result.loss()},
                                  {"perplexity", result.perplexity()},
                                  {"tokens", result.tokens},
                                  {"bits_per_byte", or_null(bits)},
                                  {"checkpoint", checkpoint.string()},
                                  {"data", data}};
    fmt::print("{}\n", json_text(facts, 2));
  } else {
    fmt::print("{} on {}: loss {:.4f}, perplexity {}, {} bits a byte, {} tokens\n", checkpoint.filename().string(), data,
               result.loss(), perplexity_text(result.perplexity()), bits ? fmt::format("{:.4f}", *bits) : "-", result.tokens);
  }
}

}  // namespace smlp
