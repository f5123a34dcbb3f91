#include "metrics/exporter.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <nlohmann/json.hpp>
#include <thread>
#include <vector>

#include "core/error.h"
#include "metrics/listen.h"
#include "tests/metrics/http.h"
#include "tests/metrics/reports.h"

namespace smlp {
namespace {

test::Answer scrape(const Exporter& exporter) {
  return test::get("http://" + exporter.address() + "/metrics");
}

sockaddr_in address_of(const Exporter& exporter) {
  const auto& address = exporter.address();
  sockaddr_in where{};
  where.sin_family = AF_INET;
  where.sin_port = htons(static_cast<std::uint16_t>(std::stoi(address.substr(address.rfind(':') + 1))));
  inet_pton(AF_INET, "127.0.0.1", &where.sin_addr);
  return where;
}

// Sends what a browser, a scanner or a broken client may send; the first line of the answer.
std::string answer_to(const std::string& request, const Exporter& exporter) {
  const auto where = address_of(exporter);
  const int there = socket(AF_INET, SOCK_STREAM, 0);
  const timeval limit{5, 0};
  setsockopt(there, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  std::string answer(1024, '\0');
  if (connect(there, reinterpret_cast<const sockaddr*>(&where), sizeof where) == 0 &&
      send(there, request.data(), request.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(request.size())) {
    shutdown(there, SHUT_WR);
    answer.resize(static_cast<std::size_t>(std::max<ssize_t>(recv(there, answer.data(), answer.size(), 0), 0)));
  }
  close(there);
  return answer.substr(0, answer.find('\r'));
}

std::string refusal(const std::string& listen) {
  const RunMetrics metrics(test::small_run(0));
  try {
    const Exporter exporter(listen, metrics);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::configuration);
    EXPECT_NE(std::string(error.what()).find(listen), std::string::npos) << error.what();
    return error.what();
  }
  ADD_FAILURE() << listen << " was accepted";
  return "";
}

TEST(Exporter, ServesTheRegistryOnAnyFreePort) {
  RunMetrics metrics(test::small_run(0));
  metrics.publish(test::small_step(1));
  const Exporter exporter("127.0.0.1:0", metrics), second("localhost:0", metrics);
  EXPECT_TRUE(exporter.address().starts_with("127.0.0.1:")) << exporter.address();
  EXPECT_NE(exporter.address(), "127.0.0.1:0");
  EXPECT_NE(exporter.address(), second.address());
  for (const auto* one : {&exporter, &second}) {
    const auto answer = scrape(*one);
    EXPECT_EQ(answer.status, 200);
    EXPECT_NE(answer.body.find("smlp_loss{rank=\"0\"} 5.5\n"), std::string::npos) << answer.body;
  }
}

TEST(Exporter, ServesNothingButTheRunsOwnMetrics) {
  RunMetrics metrics(test::small_run(0));
  metrics.publish(test::small_step(1));
  const Exporter exporter("127.0.0.1:0", metrics);
  EXPECT_EQ(scrape(exporter).body, metrics.text());
  EXPECT_EQ(scrape(exporter).body, metrics.text()) << "after a scrape";
}

TEST(Exporter, NamesThisHostWhenItListensEverywhere) {
  const RunMetrics metrics(test::small_run(0));
  const Exporter exporter("0.0.0.0:0", metrics);
  EXPECT_EQ(exporter.address().find("0.0.0.0"), std::string::npos) << exporter.address();
  const auto port = exporter.address().substr(exporter.address().rfind(':'));
  EXPECT_EQ(test::get("http://127.0.0.1" + port + "/metrics").status, 200);
}

// With a port of the user's choice the second rank of a host found it taken, and no run of two could start.
TEST(Exporter, EachProcessOfAHostHasAPortOfItsOwn) {
  EXPECT_EQ(listen_of_process("0.0.0.0:9100", 0), "0.0.0.0:9100");
  EXPECT_EQ(listen_of_process("0.0.0.0:9100", 3), "0.0.0.0:9103");
  EXPECT_EQ(listen_of_process("127.0.0.1:0", 3), "127.0.0.1:0");
  EXPECT_EQ(listen_of_process("9100", 1), "9100");
  EXPECT_EQ(on_any_port("0.0.0.0:9100"), "0.0.0.0:0");
  EXPECT_NE(refusal(listen_of_process("127.0.0.1:65535", 1)).find("'65536' is not a port"), std::string::npos);
}

TEST(Exporter, SaysWhyItCantListen) {
  const RunMetrics metrics(test::small_run(0));
  const Exporter taken("127.0.0.1:0", metrics);
  EXPECT_NE(refusal(taken.address()).find("Address already in use"), std::string::npos);
  EXPECT_NE(refusal("9100").find("host:port"), std::string::npos);
  EXPECT_NE(refusal("127.0.0.1:http").find("'http' is not a port"), std::string::npos);
  EXPECT_NE(refusal("127.0.0.1:70000").find("'70000' is not a port"), std::string::npos);
  EXPECT_NE(refusal("nowhere.invalid:0").find("unknown"), std::string::npos);
  refusal("[::1]:0");
  EXPECT_NE(refusal("192.0.2.1:0").find("Cannot assign requested address"), std::string::npos);
}

// As many as the server has threads held each for 30 seconds, and Prometheus got no answer.
TEST(Exporter, ClientsThatSayNothingKeepNobodyOutForLong) {
  const RunMetrics metrics(test::small_run(0));
  const Exporter exporter("127.0.0.1:0", metrics);
  const auto where = address_of(exporter);
  std::vector<int> silent(8);
  for (int& one : silent) {
    one = socket(AF_INET, SOCK_STREAM, 0);
    ASSERT_EQ(connect(one, reinterpret_cast<const sockaddr*>(&where), sizeof where), 0);
  }
  const auto began = std::chrono::steady_clock::now();
  long status = 0;
  for (int again = 0; status != 200 && again < 4; ++again) status = scrape(exporter).status;
  EXPECT_EQ(status, 200);
  EXPECT_LT(std::chrono::steady_clock::now() - began, std::chrono::seconds(15));
  for (const int one : silent) close(one);
}

// What OpenBLAS keeps in every thread of a worker, out of the thread's own stack.
thread_local volatile char as_much_as_openblas[61440];

// A browser asks for /favicon.ico by itself: that ended the rank a moment later.
TEST(Exporter, ARequestForAnotherPathEndsNoRank) {
  as_much_as_openblas[0] = 1;
  RunMetrics metrics(test::small_run(0));
  metrics.publish(test::small_step(1));
  for (int again = 0; again < 3; ++again) {
    const Exporter exporter("127.0.0.1:0", metrics);
    for (const char* path : {"/favicon.ico", "/", "/metrics/../../etc/passwd", "//", "/metrics/x", "/%00", "/a?b=c"}) {
      const auto answer = answer_to(fmt::format("GET {} HTTP/1.1\r\nHost: x\r\n\r\n", path), exporter);
      EXPECT_TRUE(answer.starts_with("HTTP/1.1 ")) << path << ": " << answer;
    }
    for (const char* method : {"HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PROPFIND", "BREW"}) {
      answer_to(fmt::format("{} /metrics HTTP/1.1\r\nHost: x\r\n\r\n", method), exporter);
      answer_to(fmt::format("{} /else HTTP/1.1\r\nHost: x\r\n\r\n", method), exporter);
    }
    answer_to("\x16\x03\x01 hello\r\n\r\n", exporter);
    answer_to("GET /" + std::string(100000, 'x') + " HTTP/1.1\r\n\r\n", exporter);
    EXPECT_EQ(scrape(exporter).status, 200);
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
}

// Stopping must not hold up a rank that leaves, not even while a scraper keeps its connection open.
TEST(Exporter, StopsAtOnceAndFreesItsPort) {
  const RunMetrics metrics(test::small_run(0));
  auto exporter = std::make_unique<Exporter>("127.0.0.1:0", metrics);
  const auto address = exporter->address();
  const test::Getter scraper;
  EXPECT_EQ(scraper.get("http://" + address + "/metrics").status, 200);
  const auto begin = std::chrono::steady_clock::now();
  exporter.reset();
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::milliseconds(1500));
  EXPECT_EQ(test::get("http://" + address + "/metrics").status, 0);
  const Exporter again(address, metrics);
  EXPECT_EQ(again.address(), address);
  EXPECT_EQ(scrape(again).status, 200);
}

// Scrapes run while the loop publishes, new blocks and experts included; meant for the thread sanitizer as
// well.
TEST(Exporter, IsReadWhileTheLoopPublishes) {
  auto run = test::small_run(0);
  run.blocks = 1000;
  RunMetrics metrics(run);
  const Exporter exporter("127.0.0.1:0", metrics);
  std::atomic<bool> stop = false;
  std::atomic<int> good = 0;
  std::vector<std::jthread> scrapers;
  for (int i = 0; i < 2; ++i) {
    scrapers.emplace_back([&] {
      while (!stop) {
        const auto answer = scrape(exporter);
        if (answer.status == 200 && answer.body.find("smlp_step{") != std::string::npos) ++good;
      }
    });
  }
  std::int64_t step = 0;
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while ((step < 2000 || good < 20) && std::chrono::steady_clock::now() < end) {
    auto report = test::small_step(++step);
    report.blocks[0].block = step % 50;
    metrics.publish(report);
    metrics.checkpoint_published("shared", step, 0.5, 10, 1.0);
    metrics.restarts("signal", step);
    EXPECT_EQ(metrics.to_json(report, 1.0)["step"], step);
  }
  stop = true;
  scrapers.clear();
  EXPECT_GE(good, 20);
  EXPECT_NE(scrape(exporter).body.find(fmt::format("smlp_steps_total{{rank=\"0\"}} {}\n", step)),
            std::string::npos);
}

TEST(Exporter, HasNoGpuWhereThereIsNoMeter) {
  std::string why_not;
  EXPECT_FALSE(GpuMeter::open("0000:00:1f.7", &why_not));
  EXPECT_NE(why_not.find("libnvidia-ml.so.1"), std::string::npos) << why_not;
  const RunMetrics metrics(test::small_run(0));
  const Exporter exporter("127.0.0.1:0", metrics);
  EXPECT_EQ(scrape(exporter).body.find("smlp_gpu"), std::string::npos);
}

}  // namespace
}  // namespace smlp
