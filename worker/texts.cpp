#include "worker/texts.h"

#include <nlohmann/json.hpp>

#include "core/json_text.h"

namespace smlp {

std::string broadcast_text(Communicator& world, const std::string& mine) {
  const auto view = std::as_bytes(std::span(mine));
  std::vector<std::byte> bytes(view.begin(), view.end());
  world.broadcast_bytes(bytes, 0);
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::vector<std::string> gather_texts(Communicator& world, const std::string& mine) {
  std::vector<std::string> texts;
  for (const auto& bytes : world.gather_bytes(std::as_bytes(std::span(mine)), 0)) {
    texts.emplace_back(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  }
  return texts;
}

std::string first_text(Communicator& world, const std::string& mine) {
  std::string first;
  for (const auto& text : gather_texts(world, mine)) {
    if (first.empty()) first = text;
  }
  return broadcast_text(world, first);
}

std::vector<std::string> all_texts(Communicator& world, const std::string& mine) {
  const auto texts = gather_texts(world, mine);
  return nlohmann::json::parse(broadcast_text(world, json_text(nlohmann::json(texts))));
}

}  // namespace smlp
