// A real Prometheus finds two ranks through file_sd, scrapes them, and answers questions about them.
#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "metrics/exporter.h"
#include "metrics/target_groups.h"
#include "tests/metrics/http.h"
#include "tests/metrics/reports.h"

namespace smlp {
namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;

bool installed(const std::string& program) {
  return std::system(("command -v " + program + " >/dev/null").c_str()) == 0;
}

class Folder {
 public:
  Folder() {
    std::string name = (fs::temp_directory_path() / "smlp-prometheus-XXXXXX").string();
    path_ = mkdtemp(name.data());
  }
  ~Folder() { fs::remove_all(path_); }
  fs::path operator/(const char* name) const { return path_ / name; }

 private:
  fs::path path_;
};

int free_port() {
  const int probe = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in place{};
  place.sin_family = AF_INET;
  place.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof place;
  EXPECT_EQ(bind(probe, reinterpret_cast<sockaddr*>(&place), size), 0);
  getsockname(probe, reinterpret_cast<sockaddr*>(&place), &size);
  close(probe);
  return ntohs(place.sin_port);
}

// Runs until destroyed, and dies with this process.
class Prometheus {
 public:
  explicit Prometheus(const Folder& folder) : log_(folder / "log"), port_(free_port()) {
    const auto config = "--config.file=" + (folder / "prometheus.yml").string();
    const auto data = "--storage.tsdb.path=" + (folder / "data").string();
    const auto listen = fmt::format("--web.listen-address=127.0.0.1:{}", port_);
    const auto log = log_.string();
    process_ = fork();
    if (process_ == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      const int out = open(log.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0644);
      dup2(out, 1);
      dup2(out, 2);
      execlp("prometheus", "prometheus", config.c_str(), data.c_str(), listen.c_str(), nullptr);
      _exit(127);
    }
  }
  ~Prometheus() {
    kill(process_, SIGTERM);
    for (int i = 0; i < 50; ++i) {
      if (waitpid(process_, nullptr, WNOHANG) == process_) return;
      std::this_thread::sleep_for(100ms);
    }
    kill(process_, SIGKILL);
    waitpid(process_, nullptr, 0);
  }

  // The value of the one series that `query` gives, as text; waits for it, and then for `until` to like it.
  template <class Until>
  std::string ask(const std::string& query, Until&& until) const {
    const auto url = fmt::format("http://127.0.0.1:{}/api/v1/query?query={}", port_, test::escaped(query));
    test::Answer answer;
    for (const auto end = std::chrono::steady_clock::now() + 20s; std::chrono::steady_clock::now() < end;) {
      answer = test::get(url);
      if (answer.status == 200) {
        const auto result = nlohmann::json::parse(answer.body)["data"]["result"];
        if (result.size() == 1 && until(result[0]["value"][1].get<std::string>()))
          return result[0]["value"][1];
      }
      std::this_thread::sleep_for(100ms);
    }
    ADD_FAILURE() << query << " was answered with '" << answer.body << "'\n" << said();
    return "";
  }
  std::string ask(const std::string& query) const {
    return ask(query, [](const std::string&) { return true; });
  }

 private:
  std::string said() const {
    std::ifstream file(log_);
    return {std::istreambuf_iterator<char>(file), {}};
  }

  fs::path log_;
  int port_;
  pid_t process_;
};

void watch_targets_of(const Folder& folder) {
  std::ofstream(folder / "prometheus.yml") << fmt::format(
      "global: {{scrape_interval: 250ms, scrape_timeout: 250ms}}\n"
      "scrape_configs: [{{job_name: smlp, file_sd_configs: [{{files: ['{}'], refresh_interval: 1s}}]}}]\n",
      (folder / "targets.json").string());
}

TEST(RealPrometheus, ScrapesTwoRanksFoundThroughAFile) {
  if (!installed("prometheus")) GTEST_SKIP() << "there is no prometheus on this machine";
  RunMetrics first(test::small_run(0)), second(test::small_run(1));
  const Exporter serves_first("127.0.0.1:0", first), serves_second("127.0.0.1:0", second);
  first.publish(test::small_step(1));
  auto report = test::small_step(1);
  report.seconds = 0.75;
  second.publish(report);

  const Folder folder;
  const nlohmann::json targets = {
      {{"targets", {serves_first.address(), serves_second.address()}}, {"labels", {{"run", "demo"}}}}};
  std::ofstream(folder / "targets.json") << targets;
  watch_targets_of(folder);
  const Prometheus prometheus(folder);

  const auto is = [](const char* wanted) {
    return [=](const std::string& value) { return value == wanted; };
  };
  EXPECT_EQ(prometheus.ask("sum(up{run=\"demo\"})", is("2")), "2");
  EXPECT_EQ(prometheus.ask("smlp_loss{rank=\"0\"}"), "5.5");
  EXPECT_EQ(prometheus.ask("smlp_step_seconds_sum{rank=\"1\"}"), "0.75");
  EXPECT_EQ(prometheus.ask("smlp_expert_tokens_total{rank=\"1\",block=\"4\",expert=\"0\"}"), "1024");
  EXPECT_EQ(prometheus.ask("smlp_validation_loss{rank=\"0\"}"), "NaN");
  EXPECT_EQ(prometheus.ask("count(count by (__name__) ({__name__=~\"smlp_.*\"}))"), "33");
  report.step = 2;
  report.loss = 4.5;
  second.publish(report);
  EXPECT_EQ(prometheus.ask("smlp_loss{rank=\"1\"}", is("4.5")), "4.5");
  EXPECT_EQ(prometheus.ask("smlp_tokens_total{rank=\"1\"}", is("4096")), "4096");
}

// Any free port is another one in each attempt: once each had series of its own, and no restart was ever counted.
TEST(RealPrometheus, SeesOneSeriesOfARankOverARestart) {
  if (!installed("prometheus")) GTEST_SKIP() << "there is no prometheus on this machine";
  const Folder folder;
  const auto listed = [&](const std::vector<std::string>& addresses) {
    std::ofstream(folder / "new.json") << target_groups(addresses, {{"run", "demo"}});
    fs::rename(folder / "new.json", folder / "targets.json");
  };
  watch_targets_of(folder);
  RunMetrics first(test::small_run(0)), second(test::small_run(0));
  second.restarts("signal", 1);
  const Exporter before("127.0.0.1:0", first), after("127.0.0.1:0", second);
  listed({before.address()});
  const Prometheus prometheus(folder);
  const std::string restarts = "smlp_restarts_total{run=\"demo\",reason=\"signal\"}";
  const auto many = [](const std::string& value) { return std::stod(value) > 1; };
  prometheus.ask("count_over_time(" + restarts + "[1m])", many);
  listed({after.address()});
  prometheus.ask("increase(" + restarts + "[1m])", [](const std::string& value) { return std::stod(value) > 0; });
  EXPECT_EQ(prometheus.ask("count(count_over_time(" + restarts + "[1m]))"), "1");
}

// What docs/running.md says between ```LANGUAGE and ``` in its section on watching, with /path/to put in.
std::string documented(const std::string& language, const Folder& folder) {
  std::ifstream file("docs/running.md");
  const std::string text(std::istreambuf_iterator<char>(file), {});
  const auto fence = "```" + language + "\n";
  const auto begin = text.find(fence, text.find("\n## Watching\n")) + fence.size();
  auto block = text.substr(begin, text.find("```", begin) - begin);
  const std::string placeholder = "/path/to";
  for (auto at = block.find(placeholder); at != std::string::npos; at = block.find(placeholder)) {
    block.replace(at, placeholder.size(), (folder / "").parent_path().string());
  }
  return block;
}

// The documented file pattern was refused: a * anywhere but in the last part of a path is.
TEST(RealPrometheus, FindsRunsByWhatTheDocumentationSays) {
  if (!installed("prometheus")) GTEST_SKIP() << "there is no prometheus on this machine";
  RunMetrics first(test::small_run(0)), second(test::small_run(1));
  first.publish(test::small_step(1));
  second.publish(test::small_step(1));
  const Exporter serves_first("127.0.0.1:0", first), serves_second("127.0.0.1:0", second);
  const Folder folder;
  ASSERT_EQ(std::system(documented("sh", folder).c_str()), 0);
  std::ofstream(folder / "prometheus.yml") << "global: {scrape_interval: 250ms, scrape_timeout: 250ms}\n"
                                           << documented("yaml", folder);
  const Prometheus prometheus(folder);
  fs::create_directories(folder / "runs/demo");
  std::ofstream(folder / "runs/demo/targets.json")
      << target_groups({serves_first.address(), serves_second.address()}, {{"run", "demo"}});
  EXPECT_EQ(prometheus.ask("sum(up{job=\"smlp\",run=\"demo\"})", [](const std::string& value) { return value == "2"; }), "2");
  EXPECT_EQ(prometheus.ask("count(smlp_expert_tokens_total)"), "8") << "of two blocks with four experts, once";
  std::ofstream(folder / "runs/demo/targets.json") << "[]\n";
  EXPECT_EQ(prometheus.ask("absent(up{run=\"demo\"})"), "1") << "a run that has ended";
}

TEST(RealPrometheus, FindsNothingToCriticise) {
  if (!installed("promtool")) GTEST_SKIP() << "there is no promtool on this machine";
  RunMetrics metrics(test::small_run(0));
  metrics.publish(test::small_step(1));
  const Folder folder;
  std::ofstream(folder / "text") << metrics.text();
  const auto said = (folder / "said").string();
  const int status = std::system(
      fmt::format("promtool check metrics < {} > {} 2>&1", (folder / "text").string(), said).c_str());
  std::ifstream file(said);
  EXPECT_EQ(status, 0) << std::string(std::istreambuf_iterator<char>(file), {});
}

}  // namespace
}  // namespace smlp
