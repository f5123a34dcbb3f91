#include "metrics/exporter.h"

#include <CivetServer.h>
#include <arpa/inet.h>
#include <dlfcn.h>
#include <fmt/format.h>
#include <netdb.h>
#include <prometheus/text_serializer.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <exception>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "core/error.h"
#include "core/host_name.h"
#include "metrics/gpu_metrics.h"
#include "metrics/listen.h"

// The HTTP server's threads ask for 100 KiB, of which OpenBLAS's thread-local store takes 60: the answer to a path that
// is not there then ran over into the next thread's, and the rank died of it. No option of the server says otherwise, so
// its call is met here, on the way to the C library.
extern "C" int pthread_attr_setstacksize(pthread_attr_t* attributes, std::size_t bytes) noexcept {
  using Call = int (*)(pthread_attr_t*, std::size_t);
  static const auto real = reinterpret_cast<Call>(dlsym(RTLD_NEXT, "pthread_attr_setstacksize"));
  return real(attributes, std::max(bytes, std::size_t{1} << 20));
}

namespace smlp {

namespace {

constexpr const char* threads = "8";  // a scraper or browser that keeps its connections holds one each
constexpr const char* silence_milliseconds = "3000";  // then it is let go: as many that say nothing would keep all others out

[[noreturn]] void refuse(const std::string& listen, const std::string& why) {
  throw Error(
      ExitCode::configuration,
      fmt::format(
          "metrics can't be served on '{}': {}. Give metrics.listen as \"host:port\", with port 0 for "
          "any free one",
          listen, why));
}

// An address with port. The HTTP server knows IPv4 only.
struct Place {
  sockaddr_in where{};

  const sockaddr* address() const { return reinterpret_cast<const sockaddr*>(&where); }
  bool everywhere() const { return where.sin_addr.s_addr == htonl(INADDR_ANY); }
  std::string host() const {  // numeric
    std::array<char, INET_ADDRSTRLEN> text{};
    return inet_ntop(AF_INET, &where.sin_addr, text.data(), text.size());
  }
};

class Socket {
 public:
  Socket() : descriptor_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {}
  ~Socket() {
    if (descriptor_ >= 0) close(descriptor_);
  }
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;
  int descriptor() const { return descriptor_; }

 private:
  int descriptor_;
};

Place resolve(const std::string& listen) {
  const auto colon = listen.rfind(':');
  if (colon == std::string::npos || colon == 0) refuse(listen, "it is not of the form host:port");
  auto host = listen.substr(0, colon);
  if (host == "localhost") host = "127.0.0.1";  // a bare container has no hosts file to say so
  const auto port = listen.substr(colon + 1);
  if (!names_a_port(port)) refuse(listen, fmt::format("'{}' is not a port from 0 to 65535", port));

  addrinfo hints{}, *found = nullptr;
  hints.ai_family = AF_INET;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE;
  const int failure = getaddrinfo(host.c_str(), port.c_str(), &hints, &found);
  if (failure != 0) refuse(listen, fmt::format("the host '{}' is unknown ({})", host, gai_strerror(failure)));
  Place place;
  std::memcpy(&place.where, found->ai_addr, sizeof place.where);
  freeaddrinfo(found);
  return place;
}

// The server would not say why it can't listen, so ask first.
void try_to_listen(const Place& place, const std::string& listen) {
  const Socket probe;
  const int yes = 1;
  setsockopt(probe.descriptor(), SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  if (bind(probe.descriptor(), place.address(), sizeof place.where) != 0 ||
      ::listen(probe.descriptor(), 1) != 0) {
    refuse(listen, std::strerror(errno));
  }
}

// prometheus-cpp's own Exposer would add metrics of itself to every page.
class Page final : public CivetHandler {
 public:
  Page(const RunMetrics& metrics, std::unique_ptr<GpuMeter> meter)
      : metrics_(metrics), gpu_(meter ? gpu_metrics(std::move(meter), metrics.rank()) : nullptr) {}

  bool handleGet(CivetServer*, mg_connection* to) override {
    auto text = metrics_.text();
    if (gpu_) text += prometheus::TextSerializer().Serialize(gpu_->Collect());
    mg_send_http_ok(to, "text/plain; charset=utf-8", static_cast<long long>(text.size()));
    mg_write(to, text.data(), text.size());
    return true;
  }

 private:
  const RunMetrics& metrics_;
  std::shared_ptr<prometheus::Collectable> gpu_;
};

}  // namespace

struct Exporter::Server {
  Server(const Place& where, const RunMetrics& metrics, std::unique_ptr<GpuMeter> meter)
      : place(where),
        page(metrics, std::move(meter)),
        http(std::make_unique<CivetServer>(std::vector<std::string>{
            "listening_ports", fmt::format("{}:{}", where.host(), ntohs(where.where.sin_port)), "num_threads", threads,
            "request_timeout_ms", silence_milliseconds})) {
    http->addHandler("/metrics", page);
    place.where.sin_port = htons(static_cast<std::uint16_t>(http->getListeningPorts().at(0)));
  }
  // The server's listener looks up every two seconds only: knocking makes it see at once that it shall stop.
  ~Server() {
    std::jthread knocking;
    try {
      knocking = std::jthread([this](const std::stop_token& stopped) { knock_until(stopped); });
    } catch (const std::system_error&) {  // no thread is to be had: two seconds, then
    }
    http.reset();
  }
  void knock_until(const std::stop_token& stopped) const {
    while (!stopped.stop_requested()) {
      const Socket knock;
      connect(knock.descriptor(), place.address(), sizeof place.where);
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
  }

  Place place;  // a wildcard address reaches this host too
  Page page;
  std::unique_ptr<CivetServer> http;
};

Exporter::Exporter(const std::string& listen, const RunMetrics& metrics, std::unique_ptr<GpuMeter> gpu) {
  const auto place = resolve(listen);
  try_to_listen(place, listen);
  try {
    server_ = std::make_unique<Server>(place, metrics, std::move(gpu));
  } catch (const std::exception& error) {
    refuse(listen, error.what());
  }
  address_ = fmt::format("{}:{}", place.everywhere() ? host_name() : place.host(),
                         ntohs(server_->place.where.sin_port));
}

Exporter::~Exporter() = default;

}  // namespace smlp
