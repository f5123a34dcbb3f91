// What a command prints for other programs.
#pragma once

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "core/json_text.h"

namespace smlp {

// One document, indented. Members stand in the order that they have.
inline void print_json(const nlohmann::ordered_json& document) { fmt::print("{}\n", json_text(document, 2)); }

}  // namespace smlp
