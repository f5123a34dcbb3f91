// Text from a trained model, one token after another. Sampling is a function of the seed and the position.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "layers/model.h"

namespace smlp {

struct GenerationSettings {
  std::int64_t tokens = 100;     // how many to add
  double temperature = 1.0;      // 0: the likeliest token
  std::int64_t top_k = 0;        // 0: all
  std::uint64_t seed = 1;
  std::int64_t context = 0, vocabulary = 0;  // of the model
  std::int64_t known_tokens = 0;  // ids from here on are padding of the vocabulary and are never drawn
  std::vector<std::int32_t> absent_tokens = {};  // nor are these below it, ascending, which the tokenizer skips
  std::int32_t stop_token = -1;   // ends the text; -1: none
};

// Goes on from `prompt` (not empty). `emit` gets each token as it is drawn; every rank of an expert group
// calls this with the same arguments and draws the same tokens.
std::vector<std::int32_t> generate(Model& model, Backend& backend, Arena& arena, std::vector<std::int32_t> prompt,
                                   DType type, const GenerationSettings& settings,
                                   const std::function<void(std::int32_t)>& emit);

}  // namespace smlp
