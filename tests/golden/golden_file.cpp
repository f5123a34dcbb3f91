#include "tests/golden/golden_file.h"

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>

namespace smlp::test {

namespace {

using Json = nlohmann::json;

Activation activation_named(const std::string& name) {
  if (name == "gelu_tanh") return Activation::gelu_tanh;
  if (name == "gelu") return Activation::gelu;
  if (name == "relu") return Activation::relu;
  throw std::runtime_error("golden file: unknown activation " + name);
}

// Why this build cannot run the model, or "".
std::string missing_part(const GoldenFile& golden) {
  for (const auto& kind : golden.stack) {
    if (!has_attention(kind) && !has_spatial_gate(kind)) return "blocks of kind " + kind;
  }
  return "";
}

ModelConfig config_of(const GoldenFile& golden, const Json& model) {
  ModelConfig config;
  config.stack = golden.stack;
  config.context = model.at("context");
  config.width = model.at("width");
  config.hidden = model.at("hidden");
  config.experts = model.at("experts");
  config.heads = model.value("heads", 1);
  config.vocabulary = model.at("vocabulary");
  config.activation = activation_named(model.at("activation"));
  config.group_sequences = model.at("routing_group_sequences");
  if (model.contains("prefix")) config.channels = "partial";
  for (const auto& kind : golden.stack) {
    if (kind == "switch" || kind == "gshard" || kind == "hash") config.router.tokens = kind;
  }
  config.router.softmax.second = SecondChoice::all;
  config.router.softmax.auxiliary.balance_weight = model.value("aux_weight", 0.0);
  config.router.hash_table = model.value("table", std::vector<std::int32_t>{});
  return config;
}

template <class T>
std::vector<T> flat(const Json& rows) {
  std::vector<T> all;
  for (const auto& row : rows) {
    for (const auto& value : row) all.push_back(value.get<T>());
  }
  return all;
}

std::map<std::string, GoldenTensor> weights_of(const Json& json) {
  std::map<std::string, GoldenTensor> all;
  for (const auto& [name, tensor] : json.items()) {
    all[name] = {tensor.at("shape").get<std::vector<std::int64_t>>(),
                 tensor.at("data").get<std::vector<double>>()};
  }
  return all;
}

}  // namespace

std::filesystem::path golden_folder() {
  if (const char* folder = std::getenv("SMLP_GOLDEN_DIR")) return folder;
  if (const char* shared = std::getenv("SMLP_SHARED_DATA")) return std::filesystem::path(shared) / "golden";
  return "../shared/data/golden";
}

std::vector<std::filesystem::path> golden_files() {
  std::vector<std::filesystem::path> files;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(golden_folder(), error)) {
    if (entry.path().extension() == ".json") files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  return files;
}

GoldenFile read_golden(const std::filesystem::path& path) {
  std::ifstream stream(path);
  const Json json = Json::parse(stream);
  const Json& model = json.at("model");
  GoldenFile golden;
  golden.name = json.at("name");
  golden.stack = model.at("stack").get<std::vector<std::string>>();
  golden.missing = missing_part(golden);
  if (!golden.missing.empty()) return golden;
  golden.config = config_of(golden, model);
  golden.batch = model.at("batch");
  golden.tokens = flat<std::int32_t>(json.at("tokens"));
  golden.targets = flat<std::int32_t>(json.at("targets"));
  golden.weights = weights_of(json.at("weights"));
  golden.gradients = weights_of(json.at("gradients"));
  golden.logits = json.at("logits").at("data").get<std::vector<double>>();
  golden.loss = json.at("loss");
  const Json& training = json.at("training");
  const Json& optimizer = training.at("optimizer");
  golden.learning_rate = optimizer.at("learning_rate");
  golden.optimizer = {optimizer.at("beta1"), optimizer.at("beta2"), optimizer.at("eps"),
                      optimizer.at("weight_decay"), optimizer.at("clip_norm")};
  golden.losses = training.at("losses").get<std::vector<double>>();
  golden.gradient_norms = training.at("gradient_norms").get<std::vector<double>>();
  return golden;
}

}  // namespace smlp::test
