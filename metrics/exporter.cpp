#include "metrics/exporter.h"

#include <fmt/format.h>
#include <netdb.h>
#include <prometheus/exposer.h>
#include <prometheus/registry.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <exception>

#include "core/error.h"

namespace smlp {

namespace {

constexpr std::size_t threads = 2;  // one may be held by a scraper that keeps its connection

[[noreturn]] void refuse(const std::string& listen, const std::string& why) {
  throw Error(
      ExitCode::configuration,
      fmt::format(
          "metrics can't be served on '{}': {}. Give metrics.listen as \"host:port\", with port 0 for "
          "any free one",
          listen, why));
}

struct Place {
  std::string host;  // numeric, in brackets when it is IPv6
  std::string port;
  bool everywhere = false;
};

bool names_a_port(const std::string& port) {
  return !port.empty() && port.size() <= 5 && port.find_first_not_of("0123456789") == std::string::npos &&
         std::stol(port) <= 65535;
}

// Finds the numeric address, and whether it can be bound: the server itself would not say why not.
Place resolve(const std::string& listen) {
  const auto colon = listen.rfind(':');
  if (colon == std::string::npos || colon == 0) refuse(listen, "it is not of the form host:port");
  auto host = listen.substr(0, colon);
  const auto port = listen.substr(colon + 1);
  if (!names_a_port(port)) refuse(listen, fmt::format("'{}' is not a port from 0 to 65535", port));
  if (host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);

  addrinfo hints{}, *found = nullptr;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE;
  const int failure = getaddrinfo(host.c_str(), port.c_str(), &hints, &found);
  if (failure != 0) refuse(listen, fmt::format("the host '{}' is unknown ({})", host, gai_strerror(failure)));
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> owned(found, freeaddrinfo);

  std::array<char, NI_MAXHOST> numeric{};
  getnameinfo(found->ai_addr, found->ai_addrlen, numeric.data(), numeric.size(), nullptr, 0, NI_NUMERICHOST);
  const int probe = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const int yes = 1;
  setsockopt(probe, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  const bool bound = bind(probe, found->ai_addr, found->ai_addrlen) == 0 && ::listen(probe, 1) == 0;
  const int reason = errno;
  close(probe);
  if (!bound) refuse(listen, std::strerror(reason));

  Place place{numeric.data(), port};
  place.everywhere = place.host == "0.0.0.0" || place.host == "::";
  if (found->ai_family == AF_INET6) place.host = fmt::format("[{}]", place.host);
  return place;
}

std::string host_name() {
  std::array<char, 256> name{};
  if (gethostname(name.data(), name.size() - 1) != 0) return "localhost";
  return name.data();
}

}  // namespace

Exporter::Exporter(const std::string& listen, const RunMetrics& metrics) {
  const auto place = resolve(listen);
  try {
    exposer_ = std::make_unique<prometheus::Exposer>(fmt::format("{}:{}", place.host, place.port), threads);
    exposer_->RegisterCollectable(metrics.registry());
    address_ = fmt::format("{}:{}", place.everywhere ? host_name() : place.host,
                           exposer_->GetListeningPorts().at(0));
  } catch (const std::exception& error) {
    refuse(listen, error.what());
  }
}

Exporter::~Exporter() = default;

}  // namespace smlp
