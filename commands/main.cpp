// smlp: what a user types. Starts on any machine, a login node included: what needs the model runs smlp-worker.
#include <fmt/format.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <new>
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

// Is it the path that is wrong, rather than the disk?
bool of_a_name(const std::error_code& reason) {
  constexpr std::array wrong = {std::errc::filename_too_long, std::errc::too_many_symbolic_link_levels,
                                std::errc::not_a_directory, std::errc::no_such_file_or_directory};
  return std::find(wrong.begin(), wrong.end(), reason) != wrong.end();
}

struct Ending {
  int code = 0;
  bool printed_results = true;  // else only words about what lies in files: `run`, which a full disk under its log ends not
};

Ending run(int argc, char** argv) {
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
  add_guard_command(app, exit_code);
  add_doctor_command(app, exit_code);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return {app.exit(error)};  // --help, --version
    return {complain(ExitCode::usage, usage_sentence(app, error, argc, argv))};
  }
  return {exit_code, !app.got_subcommand("run")};
}

}  // namespace
}  // namespace smlp

int main(int argc, char** argv) {
  spdlog::set_default_logger(spdlog::stderr_logger_mt("smlp"));
  spdlog::set_pattern("smlp: %v");
  std::signal(SIGXFSZ, SIG_IGN);  // a file that may grow no more (`ulimit -f`) is a write that fails, and told
  std::signal(SIGCHLD, SIG_DFL);  // an inherited "ignore" would let children vanish before their exit codes are read
  try {
    const auto ending = smlp::run(argc, argv);
    const bool lost = std::fflush(stdout) != 0 || std::ferror(stdout) != 0;
    if (lost && ending.printed_results && ending.code == 0) {
      return smlp::complain(smlp::ExitCode::io_failed, "writing to the standard output failed");
    }
    return ending.code;
  } catch (const smlp::Error& error) {
    return smlp::complain(error.code(), error.what());
  } catch (const std::filesystem::filesystem_error& error) {
    return smlp::complain(smlp::of_a_name(error.code()) ? smlp::ExitCode::configuration : smlp::ExitCode::io_failed,
                          fmt::format("{}: {}", error.path1().string(), error.code().message()));
  } catch (const std::system_error& error) {  // failed prints among them
    return smlp::complain(smlp::ExitCode::io_failed, error.what());
  } catch (const std::bad_alloc&) {
    return smlp::complain(smlp::ExitCode::unavailable, smlp::out_of_memory);
  } catch (const std::exception& error) {
    return smlp::complain(smlp::ExitCode::fault, fmt::format("{} (a defect of smlp: please report it)", error.what()));
  }
}
