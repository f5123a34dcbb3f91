// smlp: what a user types. Starts on any machine, a login node included: what needs the model runs smlp-worker.
#include <fmt/format.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <csignal>
#include <cstdio>
#include <sstream>
#include <system_error>

#include "commands/commands.h"
#include "commands/usage.h"
#include "core/error.h"
#include "core/tell.h"
#include "core/version.h"

namespace smlp {
namespace {

int complain(ExitCode code, const std::string& sentences) {
  std::fflush(stdout);
  std::istringstream lines(sentences);
  for (std::string line; std::getline(lines, line);) tell("{}", line);
  return static_cast<int>(code);
}

int run(int argc, char** argv) {
  CLI::App app{"Trains sparse all-MLP language models on MPI ranks.", "smlp"};
  app.set_version_flag("--version", fmt::format("smlp {} ({})", version(), compiler()));
  app.require_subcommand(1);
  app.footer("Example:\n  smlp run examples/demo.toml\n\n`smlp COMMAND --help` explains a command, with an example.");
  int exit_code = 0;
  add_run_command(app, exit_code);
  add_status_command(app);
  add_save_command(app);
  add_stop_command(app);
  add_dump_command(app);
  add_drill_command(app, exit_code);
  add_submit_command(app);
  add_logs_command(app);
  add_plan_command(app, exit_code);
  add_config_commands(app);
  add_data_commands(app);
  add_checkpoint_commands(app, exit_code);
  add_eval_command(app, exit_code);
  add_generate_command(app, exit_code);
  add_check_commands(app, exit_code);
  add_compare_command(app);
  add_bench_command(app, exit_code);
  add_guard_command(app);
  add_doctor_command(app, exit_code);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);  // --help, --version
    return complain(ExitCode::usage, usage_sentence(app, error, argc, argv));
  }
  return exit_code;
}

}  // namespace
}  // namespace smlp

int main(int argc, char** argv) {
  spdlog::set_default_logger(spdlog::stderr_logger_mt("smlp"));
  spdlog::set_pattern("smlp: %v");
  std::signal(SIGXFSZ, SIG_IGN);  // a file that may grow no more (`ulimit -f`) is a write that fails, and told
  try {
    const int code = smlp::run(argc, argv);
    if ((std::fflush(stdout) != 0 || std::ferror(stdout) != 0) && code == 0) {
      return smlp::complain(smlp::ExitCode::io_failed, "writing to the standard output failed");
    }
    return code;
  } catch (const smlp::Error& error) {
    return smlp::complain(error.code(), error.what());
  } catch (const std::system_error& error) {  // file system errors and failed prints among them
    return smlp::complain(smlp::ExitCode::io_failed, error.what());
  } catch (const std::exception& error) {
    return smlp::complain(smlp::ExitCode::fault, fmt::format("{} (a defect of smlp: please report it)", error.what()));
  }
}
