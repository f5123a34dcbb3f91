// Addresses as metrics.listen writes them: "host:port", where port 0 is any free one.
#pragma once

#include <cstdint>
#include <string>

namespace smlp {

bool names_a_port(const std::string& port);

// Where the n-th process of a host listens: at a port as far above the one given; 0 is any free one for each.
std::string listen_of_process(const std::string& listen, std::int64_t number);

// The same host, any free port.
std::string on_any_port(const std::string& listen);

}  // namespace smlp
