#include "worker/preflight.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <functional>
#include <future>
#include <limits>
#include <nlohmann/json.hpp>
#include <numeric>
#include <thread>

#include "core/clock.h"
#include "core/cores.h"
#include "core/error.h"
#include "core/host_name.h"
#include "core/job_file.h"
#include "core/json_text.h"
#include "core/numbers.h"
#include "core/version.h"
#include "tensor/backend.h"

namespace smlp {

namespace {

using Clock = std::chrono::steady_clock;

constexpr auto disk_limit = std::chrono::seconds(5), job_limit = std::chrono::seconds(3);
constexpr unsigned whole_limit_seconds = 9;
constexpr double product_seconds = 0.3;

// Runs on a thread of its own that nobody joins: a file system that does not answer holds up that thread alone.
template <class Task>
auto aside(Task task) {
  std::packaged_task<decltype(task())()> packaged(std::move(task));
  auto future = packaged.get_future();
  std::thread(std::move(packaged)).detach();
  return future;
}

struct FolderFacts {
  std::filesystem::path path;
  double free_bytes = 0, sync_seconds = 0;
  bool writable = false;
  std::string failure;
};

std::string reason(const char* what) { return fmt::format("{}: {}", what, std::strerror(errno)); }

// A file without a name where the file system can (NFS can't), else one whose name is gone at once.
int open_nameless(const std::filesystem::path& folder) {
  const int nameless = ::open(folder.c_str(), O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600);
  if (nameless >= 0 || (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL)) return nameless;
  std::string name = folder / ".preflight-XXXXXX";
  const int file = ::mkostemp(name.data(), O_CLOEXEC);
  if (file >= 0) ::unlink(name.c_str());
  return file;
}

void try_to_write(FolderFacts& facts, const std::filesystem::path& folder) {
  const auto began = Clock::now();
  const int file = open_nameless(folder);
  if (file < 0) {
    facts.failure = reason("takes no file");
    return;
  }
  static constexpr std::array<char, 65536> block{};
  const auto written = ::write(file, block.data(), block.size());
  if (written != static_cast<ssize_t>(block.size())) {
    facts.failure = written < 0 ? reason("can't be written to") : "is full";
  } else if (::fsync(file) != 0) {
    facts.failure = reason("can't be written to (fsync)");
  } else {
    facts.writable = true;
  }
  ::close(file);
  facts.sync_seconds = std::chrono::duration<double>(Clock::now() - began).count();
}

// `made_later`: the folder itself need not be there yet; what counts is the place where it will be made.
FolderFacts examine(const std::filesystem::path& path, bool made_later) {
  FolderFacts facts{.path = path, .failure = {}};
  auto folder = std::filesystem::absolute(path);
  std::error_code error;
  while (made_later && !std::filesystem::exists(folder, error) && folder != folder.root_path()) {
    folder = folder.parent_path();
  }
  struct statvfs numbers {};
  if (::statvfs(folder.c_str(), &numbers) != 0) {
    facts.failure = reason("can't be looked at");
    return facts;
  }
  facts.free_bytes = static_cast<double>(numbers.f_bavail) * static_cast<double>(numbers.f_frsize);
  try_to_write(facts, folder);
  return facts;
}

FolderFacts facts_by(std::future<FolderFacts>& future, const std::filesystem::path& path, Clock::time_point deadline) {
  if (future.wait_until(deadline) == std::future_status::ready) return future.get();
  FolderFacts facts{.path = path, .failure = {}};
  facts.sync_seconds = static_cast<double>(disk_limit.count());
  facts.failure = fmt::format("did not answer within {} s", disk_limit.count());
  return facts;
}

nlohmann::ordered_json to_json(const FolderFacts& facts) {
  constexpr double most = static_cast<double>(std::int64_t{1} << 62);
  return {{"path", facts.path.string()},
          {"free_bytes", static_cast<std::int64_t>(std::min(facts.free_bytes, most))},
          {"sync_seconds", facts.sync_seconds},
          {"writable", facts.writable},
          {"failure", facts.failure}};
}

// A container may show some of them only.
std::int64_t count_devices() {
  const auto is_device = [](const std::filesystem::directory_entry& entry) {
    const auto name = entry.path().filename().string();
    return name.starts_with("nvidia") && parse_whole_number(std::string_view(name).substr(6)).has_value();
  };
  std::error_code unreadable;
  const std::filesystem::directory_iterator entries("/dev", unreadable);
  return std::count_if(begin(entries), end(entries), is_device);
}

struct ProductRates {
  double whole = 0, best = 0;  // floating-point operations a second
};

ProductRates measure_products(int threads) {
  constexpr std::int64_t n = 512;
  constexpr double work = 2.0 * n * n * n;
  const auto backend = make_cpu_backend({.threads = threads});
  void* const memory = backend->allocate(3 * n * n * size_of(DType::f32));
  const TensorView a(memory, {n, n}, DType::f32);
  const TensorView b(a.at(n * n), {n, n}, DType::f32), out(a.at(2 * n * n), {n, n}, DType::f32);
  backend->fill(a, 0.5);
  backend->fill(b, 0.25);
  const auto multiply = [&] {
    backend->matmul({.a = a, .b = b, .out = out});
    backend->synchronize();
  };
  multiply();  // the first one prepares
  double least = std::numeric_limits<double>::max(), before = monotonic_seconds(), now = before;
  const double began = before;
  std::int64_t products = 0;
  for (; products < 3 || now - began < product_seconds; ++products) {
    multiply();
    now = monotonic_seconds();
    least = std::min(least, now - before);
    before = now;
  }
  backend->release(memory);
  return {work * static_cast<double>(products) / (now - began), work / least};
}

void end_late(int) {
  constexpr std::string_view words = "smlp: the preflight of this node did not end in time\n";
  [[maybe_unused]] const auto written = ::write(STDERR_FILENO, words.data(), words.size());
  ::_exit(static_cast<int>(ExitCode::io_failed));
}

[[noreturn]] void print_and_leave(const nlohmann::ordered_json& document) {
  const auto line = json_text(document) + "\n";
  for (std::size_t at = 0; at < line.size();) {
    const auto written = ::write(STDOUT_FILENO, line.data() + at, line.size() - at);
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) ::_exit(static_cast<int>(ExitCode::io_failed));
    at += static_cast<std::size_t>(written);
  }
  ::_exit(0);
}

}  // namespace

void preflight_command(const PreflightOptions& options) {
  std::signal(SIGALRM, end_late);
  ::alarm(whole_limit_seconds);
  const auto began = Clock::now();
  const auto deadline = began + disk_limit;
  auto run_dir = aside([path = options.run_dir, later = options.run_dir_made_later] { return examine(path, later); });
  std::future<JobConfig> reading;
  JobConfig job;
  if (options.job) reading = aside([path = *options.job] { return load_job(path).config; });
  if (options.job && reading.wait_until(began + job_limit) == std::future_status::ready) job = reading.get();
  const std::filesystem::path local_path = job.checkpoint.local_dir;
  std::future<FolderFacts> local_dir;
  if (!local_path.empty()) local_dir = aside([local_path] { return examine(local_path, true); });

  const auto cores = cores_here();
  const auto processors = std::transform_reduce(cores.begin(), cores.end(), std::int64_t{0}, std::plus<>(),
                                                [](const Core& core) { return static_cast<std::int64_t>(core.size()); });
  const auto threads = std::clamp<std::int64_t>(job.cluster.threads, 1, std::max<std::int64_t>(1, processors));
  const auto rates = measure_products(static_cast<int>(threads));
  nlohmann::ordered_json document = {
      {"host", host_name()},
      {"cores", cores.size()},
      {"threads", processors},
      {"core_list", cores},
      {"devices", count_devices()},
      {"isa", cpu_isa()},
      {"version", version()},
      {"product_flops", rates.whole},
      {"best_product_flops", rates.best},
      {"run_dir", to_json(facts_by(run_dir, options.run_dir, deadline))},
      {"local_dir", nullptr}};
  if (!local_path.empty()) document["local_dir"] = to_json(facts_by(local_dir, local_path, deadline));
  document["clock_seconds"] = unix_seconds();
  print_and_leave(document);
}

}  // namespace smlp
