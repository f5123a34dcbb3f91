#include "metrics/listen.h"

#include <fmt/format.h>

#include "core/numbers.h"

namespace smlp {

namespace {

constexpr std::int64_t highest_port = 65535;

}  // namespace

bool names_a_port(const std::string& port) {
  return parse_whole_number(port).value_or(highest_port + 1) <= highest_port;
}

std::string listen_of_process(const std::string& listen, std::int64_t number) {
  const auto colon = listen.rfind(':');
  if (colon == std::string::npos || !names_a_port(listen.substr(colon + 1))) return listen;  // Exporter says why
  const auto port = parse_whole_number(std::string_view(listen).substr(colon + 1)).value_or(0);
  return port == 0 ? listen : fmt::format("{}:{}", listen.substr(0, colon), port + number);
}

std::string on_any_port(const std::string& listen) { return listen.substr(0, listen.rfind(':')) + ":0"; }

}  // namespace smlp
