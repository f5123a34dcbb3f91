#include "core/model_check.h"

#include <fmt/format.h>

#include <algorithm>

#include "core/divisors.h"
#include "core/error.h"

namespace smlp {

namespace {

constexpr ModelKind kinds[] = {
    {"smlp", "gmlp", "smlp", false, false, true, ""},
    {"gmlp", "gmlp", "", false, false, true, ""},
    {"gmlp-token-moe", "gmlp", "gmlp-token-moe", false, false, true, ""},
    {"transformer", "transformer", "", false, true, false, ""},
    {"gshard", "transformer", "gshard", true, true, false, "gshard"},
    {"switch", "transformer", "switch", true, true, false, "switch"},
    {"base", "transformer", "base", false, true, false, "balanced"},
    {"hash", "transformer", "hash", false, true, false, "hash"},
};

class Problems {
 public:
  explicit Problems(const JobConfig& config) : c_(config), m_(config.model), kind_(kind_of(config.model)) {}

  std::vector<std::pair<std::string, std::string>> all() {
    check_blocks();
    check_widths();
    check_routing();
    if (m_.vocabulary == 1) wrong("model.vocabulary", "leaves nothing to predict; 0 takes the tokenizer's");
    return std::move(found_);
  }

 private:
  void wrong(const char* key, std::string sentence) { found_.emplace_back(key, std::move(sentence)); }

  void check_blocks() {
    if (!kind_.has_experts() && m_.sparse_blocks != 0) {
      wrong("model.sparse_blocks", fmt::format("but model.kind = \"{}\" has no sparse blocks; leave the key out or choose "
                                               "another kind",
                                               m_.kind));
    }
    if (m_.dense_blocks + m_.sparse_blocks == 0) wrong("model.dense_blocks", "and no sparse blocks make an empty model");
    if (kind_.alternating) {
      if (m_.sparse_blocks != m_.dense_blocks && m_.sparse_blocks != m_.dense_blocks - 1) {
        wrong("model.sparse_blocks",
              fmt::format("does not fit model.kind = \"{}\", where every other block is sparse and the first is dense; "
                          "choose {} or {}",
                          m_.kind, std::max<std::int64_t>(m_.dense_blocks - 1, 0), m_.dense_blocks));
      }
    } else if (kind_.has_experts() && m_.dense_blocks == 0 && m_.sparse_blocks > 0 && m_.placement == "paper") {
      wrong("model.dense_blocks", "leaves the paper's rule nowhere to place sparse blocks: have one dense block at least, "
                                  "or model.placement = \"fairseq\"");
    }
  }

  void check_widths() {
    if (kind_.gates) {
      if (m_.hidden % 2 != 0) {
        wrong("model.hidden", fmt::format("is odd, but a gMLP block cuts it in half; choose {} or {}", m_.hidden - 1,
                                          m_.hidden + 1));
      } else if (m_.hidden / 2 % m_.heads != 0) {
        wrong("model.heads", fmt::format("does not divide model.hidden / 2 = {}; choose {}", m_.hidden / 2,
                                         neighbours(m_.hidden / 2, m_.heads)));
      }
    }
    if (!kind_.attention) return;
    if (m_.width % 2 != 0) {
      wrong("model.width", fmt::format("is odd, but half of the channels get sines of the position and half cosines; "
                                       "choose {} or {}",
                                       m_.width - 1, m_.width + 1));
    } else if (m_.width % m_.heads != 0) {
      wrong("model.heads", fmt::format("does not divide model.width = {}, and each head of the attention takes an equal "
                                       "share of the channels; choose {}",
                                       m_.width, neighbours(m_.width, m_.heads)));
    }
  }

  void check_routing() {
    const auto& r = c_.routing;
    if (m_.sparse_blocks > 0 && r.tokens == "gshard" && m_.experts < 2) {
      wrong("model.experts", "leaves no second expert, and routing.tokens = \"gshard\" sends a token to two; choose more");
    }
    check_ranking();
    if (m_.sparse_blocks > 0 && m_.expert_layers > 1 && m_.kind != "smlp" && m_.kind != "base" && m_.kind != "hash") {
      wrong("model.expert_layers", fmt::format("makes chains of experts that are residual blocks, and those of model.kind = "
                                               "\"{}\" are none; leave the key out",
                                               m_.kind));
    }
    if (r.shuffle && m_.sparse_blocks > 0 && (r.tokens != "balanced" || m_.kind == "gmlp-token-moe")) {
      wrong("routing.shuffle",
            fmt::format("mixes tokens before a balanced assignment, and {}; leave the key out",
                        r.tokens != "balanced" ? fmt::format("routing.tokens = \"{}\" has none", r.tokens)
                                               : "experts that are whole gMLP blocks need to know their places"));
    }
    if (*kind_.tokens != '\0' && r.tokens != kind_.tokens) {
      wrong("routing.tokens", fmt::format("is not how model.kind = \"{}\" routes tokens; leave the key out or write \"{}\"",
                                          m_.kind, kind_.tokens));
    }
    if (m_.kind != "smlp") {
      if (r.channels != "deterministic") {
        wrong("routing.channels", fmt::format("says how the channels of smlp find their expert, and model.kind = \"{}\" routes "
                                              "none; leave the key out or choose smlp",
                                              m_.kind));
      }
      return;
    }
    if (r.channels == "leaky" && !r.allow_leak) {
      wrong("routing.channels", "lets a token see later ones, so its losses mean nothing for generation; "
                                "it is for study, with routing.allow_leak = true");
    }
    if (r.channels == "partial" && prefix_of(m_.context) == 0) {
      wrong("model.context", "leaves routing.channels = \"partial\" no prefix to route by: it takes the first fifth of a "
                             "sequence; choose 5 at least");
    }
    if (m_.sparse_blocks > 0 && m_.width % m_.experts != 0) {
      wrong("model.experts",
            fmt::format("does not divide model.width = {}, and each expert takes an equal share of the channels; "
                        "choose {} experts",
                        m_.width, neighbours(m_.width, m_.experts)));
    }
  }

  // Noise is drawn on logits; shares and biases rank experts by something else.
  void check_ranking() {
    const auto& r = c_.routing;
    const bool gate = r.tokens == "gshard" || r.tokens == "switch", shares = r.first_expert == "sinkhorn";
    if (!gate || (!shares && r.expert_bias_rate == 0)) return;
    if (r.expert_bias_rate != 0 && r.first_expert != "best") {
      wrong("routing.first_expert", "does not go with routing.expert_bias_rate, which ranks experts by their gates; choose "
                                    "\"best\", or an expert_bias_rate of 0");
    }
    if (r.tokens == "gshard" && r.second_expert == "sampling") {
      wrong("routing.second_expert",
            fmt::format("draws by the logits alone, and {} ranks experts by more; choose \"all\", \"random\", "
                        "\"threshold\" or \"none\"",
                        shares ? "routing.first_expert = \"sinkhorn\"" : "routing.expert_bias_rate"));
    }
  }

  const JobConfig& c_;
  const JobConfig::Model& m_;
  const ModelKind& kind_;
  std::vector<std::pair<std::string, std::string>> found_;
};

}  // namespace

const ModelKind* find_model_kind(std::string_view name) {
  const auto* found = std::ranges::find_if(kinds, [&](const ModelKind& kind) { return kind.name == name; });
  return found == std::end(kinds) ? nullptr : found;
}

const ModelKind& kind_of(const JobConfig::Model& model) {
  const auto* found = find_model_kind(model.kind);
  expect(found != nullptr, "model.kind is none of those that its key allows");
  return *found;
}

std::vector<std::pair<std::string, std::string>> model_problems(const JobConfig& config) { return Problems(config).all(); }

}  // namespace smlp
