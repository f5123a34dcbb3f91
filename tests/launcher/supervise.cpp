// The supervisor alone, as `smlp run` uses it, with limits that suit tests:
//   supervise RUN_DIR WORKER [ranks=N] [max-restarts=N] [pause=S] [start=S] [grace=S] [starter-end=S]
//             [one-request=S] [full-disk=S] [init-from=PATH] [local-dir=PATH] [lingers=S]
#include <fmt/format.h>

#include <cstdlib>
#include <string>

#include "core/clock.h"
#include "core/error.h"
#include "launcher/run_lock.h"
#include "launcher/supervisor.h"

int main(int argc, char** argv) {
  using namespace smlp;
  const RunDirectory run{argv[1]};
  JobConfig job;
  job.train.steps = 1000;
  SupervisorOptions options;
  double lingers = 0;
  options.worker = argv[2];
  options.first_pause_seconds = 0.05;
  for (int i = 3; i < argc; ++i) {
    const std::string word = argv[i], name = word.substr(0, word.find('=')), value = word.substr(name.size() + 1);
    if (name == "ranks") job.cluster.ranks = std::atoi(value.c_str());
    if (name == "max-restarts") options.max_restarts = std::atoi(value.c_str());
    if (name == "pause") options.first_pause_seconds = std::atof(value.c_str());
    if (name == "start") options.watch.start_seconds = std::atof(value.c_str());
    if (name == "grace") options.watch.grace_seconds = std::atof(value.c_str());
    if (name == "starter-end") options.starter_end_seconds = std::atof(value.c_str());
    if (name == "one-request") options.one_request_seconds = std::atof(value.c_str());
    if (name == "full-disk") options.full_disk_seconds = std::atof(value.c_str());
    if (name == "init-from") options.init_from = value;
    if (name == "local-dir") job.checkpoint.local_dir = value;
    if (name == "lingers") lingers = std::atof(value.c_str());
  }
  try {
    const auto lock = take_run(run);
    const int code = Supervisor(run, job, options).run();
    sleep_seconds(lingers);
    return code;
  } catch (const Error& error) {
    fmt::print(stderr, "smlp: {}\n", error.what());
    return static_cast<int>(error.code());
  }
}
