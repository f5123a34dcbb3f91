// A manifest or sidecar as a later version of the program may write it: it holds, and says so.
#pragma once

#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>

#include "core/digest.h"

namespace smlp::test {

template <class Change>
void change_sealed(const std::filesystem::path& path, const Change& change) {
  std::ifstream file(path);
  std::string text((std::istreambuf_iterator<char>(file)), {});
  text = "{" + text.substr(text.find('\n') + 1);
  auto object = nlohmann::json::parse(text);
  change(object);
  const std::string rest = object.dump().substr(1) + "\n";
  std::ofstream(path, std::ios::trunc) << "{\"digest\":\"" << digest_of(rest) << "\",\n" << rest;
}

inline void make_newer_format(const std::filesystem::path& checkpoint, const char* file_name = "manifest.json") {
  change_sealed(checkpoint / file_name, [](nlohmann::json& object) { object["version"] = 2; });
}

}  // namespace smlp::test
