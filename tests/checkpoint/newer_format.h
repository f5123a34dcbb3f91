// A manifest or sidecar as a later version of the program may write it: it holds, and says so.
#pragma once

#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>

#include "checkpoint/digest.h"

namespace smlp::test {

inline void make_newer_format(const std::filesystem::path& checkpoint, const char* file_name = "manifest.json") {
  const auto path = checkpoint / file_name;
  std::ifstream file(path);
  std::string text((std::istreambuf_iterator<char>(file)), {});
  text = "{" + text.substr(text.find('\n') + 1);
  auto object = nlohmann::json::parse(text);
  object["version"] = 2;
  const std::string rest = object.dump().substr(1) + "\n";
  std::ofstream(path, std::ios::trunc) << "{\"digest\":\"" << digest_of(rest) << "\",\n" << rest;
}

}  // namespace smlp::test
