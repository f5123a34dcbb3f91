#include "metrics/listen.h"

#include <fmt/format.h>

namespace smlp {

bool names_a_port(const std::string& port) {
  return !port.empty() && port.size() <= 5 && port.find_first_not_of("0123456789") == std::string::npos &&
         std::stol(port) <= 65535;
}

std::string listen_of_process(const std::string& listen, std::int64_t number) {
  const auto colon = listen.rfind(':');
  if (colon == std::string::npos || !names_a_port(listen.substr(colon + 1))) return listen;  // Exporter says why
  const auto port = std::stol(listen.substr(colon + 1));
  return port == 0 ? listen : fmt::format("{}:{}", listen.substr(0, colon), port + number);
}

std::string on_any_port(const std::string& listen) { return listen.substr(0, listen.rfind(':')) + ":0"; }

}  // namespace smlp
